from pathlib import Path

import onnx
import pytest

from onnx_shift.portfolio.pack import PackError, pack
from onnx_shift.runtime import Portfolio
from tests.runtime.conftest import network


def renamed(path: Path, name: str | None, *, size: int | None = None) -> Path:
    """Save a network whose free dimension is called `name`, or is `size`."""
    model = network(16)
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        if size is not None:
            dimension.dim_value = size
        elif name is not None:
            dimension.dim_param = name
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name, called", [("batch", "batch is N now"), (None, "unnamed is N now")])
def test_names_that_differ_alone_are_unified_and_said(tmp_path: Path, name: str | None, called: str) -> None:
    paths = [renamed(tmp_path / "a.onnx", "N"), renamed(tmp_path / "b.onnx", name)]
    selection = pack(paths, tmp_path / "p.zip")
    assert selection.notes == (f"b: free dimensions are called as in the first model: {called}",)
    portfolio = Portfolio.open(tmp_path / "p.zip")
    assert portfolio.inputs[0].shape == ["N", 3, 8, 8] and portfolio.outputs[0].shape == ["N", 5]
    model = onnx.load_model_from_string(portfolio.content("b").model.content().tobytes())
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input] == ["N"]


def test_a_fixed_dimension_is_no_free_one(tmp_path: Path) -> None:
    paths = [renamed(tmp_path / "a.onnx", "N"), renamed(tmp_path / "b.onnx", None, size=2)]
    with pytest.raises(PackError, match=r"b\.onnx: its inputs differ from those of .*a\.onnx: input .*\[2, 3, 8, 8\]"):
        pack(paths, tmp_path / "p.zip")
