"""Reading a model: whatever is handed in gives one line and no file, or a model."""

from pathlib import Path

import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import refusal
from tests.onnx_pruner.models import model


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "graph is empty"),
        (b"PK\x03\x04 this is a zip file, is it not", "not an ONNX model"),
        (b"hello world, how are you", "not an ONNX model"),
        (model().SerializeToString()[:500], "not an ONNX model"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert says in refusal(path)
    assert str(path) in refusal(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.onnx")
    assert "is a folder" in refusal(tmp_path)


def external(tmp_path: Path, location: str) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    stored = onnx.load(path, load_external_data=False)
    for tensor in stored.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(stored.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    result = prune(external(tmp_path, "weights.bin"), align=1)
    assert result.report.external_data
    assert result.report.layers[0].after == (7, 3, 3, 3)
    result.save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[0].raw_data


@pytest.mark.parametrize("location", ["missing.bin", "../weights.bin", "/etc/passwd"])
def test_external_data_that_is_missing_or_leaves_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    assert "external data" in refusal(external(tmp_path / "sub", location))
