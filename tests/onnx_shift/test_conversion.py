"""The command `quantize`, and where results of several models are written."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.conversion import gain_lines
from onnx_shift.portfolio import latency
from onnx_shift.portfolio.latency import Comparison
from onnx_shift.portfolio.profile import Speedup
from tests.networks import network
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


def test_for_sparse_kernels_layers_that_are_mostly_zero_keep_no_channel_for_alignment(tmp_path: Path) -> None:
    path, left = tmp_path / "sparse.onnx", []
    onnx.save(network(16, zeros=0.9, empty=7), path)
    for option in ([], ["--sparse-kernels"], ["--align", "1"]):
        done = CliRunner().invoke(app, ["prune", str(path), "--target", "any", "--json", *option])
        assert done.exit_code == 0, done.output
        left.append(next(iter(json.loads(done.stdout).values()))["parameters_after"])
    assert left[0] > left[1] == left[2]
    told = refusal("prune", path, "--align", "auto", "--sparse-kernels")
    assert told == "--align auto measures plain onnxruntime: leave --sparse-kernels out"


def test_two_results_of_one_name_are_refused(models: list[Path], tmp_path: Path) -> None:
    twin = tmp_path / "twin" / models[0].name
    assert refusal("quantize", models[0], twin, "--data", "digits", "-o", tmp_path / "new") == (
        f"{twin}: a second result would be {tmp_path / 'new' / models[0].stem}.int8.onnx; name the files apart"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_a_training_whose_pruned_level_is_no_faster_names_what_helps(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, gain: float
) -> None:
    def measured(calls: Mapping[str, Callable[[], object]], baseline: str, seconds: float) -> Comparison:
        assert list(calls) == ["dense", "pruned"] and baseline == "dense"
        assert all(call() is not None for call in calls.values())
        return Comparison({}, {"pruned": Speedup(gain, gain, gain)})

    monkeypatch.setattr(latency, "compare_latency", measured)
    lines = gain_lines({"levels": [{"level": 0, "onnx": ""}, {"level": 1, "onnx": str(models[0])}]})
    assert len(lines) == (gain < 1.05)
    for words in ("pruned, it is 1.00 times as fast here", "--method refill", f"onnx-shift compile {models[0]} -o"):
        assert all(words in line for line in lines)
    assert gain_lines({"levels": [{"level": 0, "onnx": ""}]}) == []
