"""Where the pruned model is written, and what is never overwritten."""

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.save import save
from tests.onnx_pruner.models import model


def test_command_writes_beside_the_input(tmp_path: Path) -> None:
    path, report = tmp_path / "sparse.onnx", tmp_path / "report.json"
    onnx.save(model(), path)
    result = CliRunner().invoke(app, ["prune", str(path), "--align", "1", "--explain", "--report", str(report)])
    assert result.exit_code == 0, result.output
    assert onnx.load(tmp_path / "sparse.pruned.onnx").graph.initializer[0].dims[0] == 7
    values = json.loads(report.read_text())
    assert (values["parameters_before"], values["parameters_after"]) == (8 * 27 + 32, 7 * 27 + 28)
    assert values["parameters_after_align_1"] == values["parameters_after"]
    assert values["verified"] is True


def test_nothing_to_do_is_a_copy_byte_for_byte(tmp_path: Path) -> None:
    path, copy = tmp_path / "dense.onnx", tmp_path / "copy.onnx"
    onnx.save(model(dead=()), path)
    result = CliRunner().invoke(app, ["prune", str(path), "-o", str(copy)])
    assert result.exit_code == 0, result.output
    assert copy.read_bytes() == path.read_bytes()
    assert "byte-identical copy" in result.output


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "sparse.onnx"
    onnx.save(model(), path)
    before = path.read_bytes()
    result = prune(path)
    with pytest.raises(OnnxShiftError, match="reads or writes this file already"):
        save(result, path, source=path)
    with pytest.raises(OnnxShiftError, match="there is no folder"):
        save(result, tmp_path / "nowhere" / "out.onnx", source=path)
    assert path.read_bytes() == before


def test_a_model_beyond_two_gigabytes_goes_to_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_shift.onnx_pruner.save.LARGEST_MESSAGE", 1 << 20)
    monkeypatch.setattr("onnx_shift.onnx_pruner.save.SMALLEST_EXTERNAL", 0)
    result = prune(model(), align=1, verify=False)
    save(result, tmp_path / "large.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert prune(tmp_path / "large.onnx").report.external_data
    assert result.model.graph.initializer[0].raw_data
