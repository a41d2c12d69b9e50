"""The command `quantize`, and where results of several models are written."""

import json
from pathlib import Path

from typer.testing import CliRunner

from onnx_shift.cli import app
from tests.onnx_shift.models import refusal


def test_quantize_writes_int8_models_beside_or_into_a_folder(models: list[Path], tmp_path: Path) -> None:
    quantize = ["quantize", *map(str, models), "--data", "digits", "--max-drop", "1"]
    done = CliRunner().invoke(app, [*quantize, "-o", str(tmp_path / "int8"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == [str(tmp_path / "int8" / f"{model.stem}.int8.onnx") for model in models]
    assert all(Path(path).stat().st_size == one["bytes_after"] for path, one in found.items())
    assert {one["images"] for one in found.values()} == {359}
    assert CliRunner().invoke(app, [*quantize, "-q"]).output == ""
    assert models[0].with_name(f"{models[0].stem}.int8.onnx").exists()


def test_prune_takes_several_files_and_a_folder_and_is_quiet(models: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    done = CliRunner().invoke(app, ["prune", *map(str, models), "-o", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == [str(folder / f"{model.stem}.pruned.onnx") for model in models]
    assert all(Path(path).exists() and one["align"] == 4 for path, one in found.items())
    report = tmp_path / "all.json"
    done = CliRunner().invoke(app, ["prune", *map(str, models), "-q", "--report", str(report)])
    assert done.output == "" and len(json.loads(report.read_text())) == 2
    assert models[1].with_name(f"{models[1].stem}.pruned.onnx").exists()
    assert refusal("prune", *models, "-o", report) == f"{report}: cannot be made ({report} is no folder)"


def test_two_results_of_one_name_are_refused(models: list[Path], tmp_path: Path) -> None:
    twin = tmp_path / "twin" / models[0].name
    assert refusal("quantize", models[0], twin, "--data", "digits", "-o", tmp_path / "new") == (
        f"{twin}: a second result would be {tmp_path / 'new' / models[0].stem}.int8.onnx; name the files apart"
    )
    assert not (tmp_path / "new").exists()
