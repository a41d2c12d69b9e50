"""Old opsets, by onnx's own converter."""

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from tests.onnx_pruner.conftest import bias, run, weight

NOTE = "opset {} was converted to 7 by onnx's own converter"


def old_model(opset: int, joined: str = "Add", axis: int = 1) -> onnx.ModelProto:
    """A network of long ago: weights listed as inputs, and a bias that broadcasts from an axis on."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    arrays = {"w": weight(16, 3, 3, 3, dead=(1, 2, 3)), "b": -bias(16), "v": weight(6, 16, 1, 1)}
    consumed = {"consumed_inputs": [0]} if opset < 6 else {}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node(joined, ["c", "b"], ["d"], broadcast=1, axis=axis, **consumed),
        helper.make_node("Relu", ["d"], ["r"], **consumed),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, floats, list(array.shape)) for name, array in arrays.items()]
    x, y = (
        helper.make_tensor_value_info(name, floats, shape) for name, shape in (("x", [2, 3, 8, 8]), ("y", [2, 6, 6, 6]))
    )
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "old", [x, *inputs], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_an_old_model_is_converted_pruned_and_that_is_said(opset: int) -> None:
    result = prune(old_model(opset), align=1)
    assert result.report.channels_removed == 3
    assert f"{NOTE.format(opset)}: verified against what that wrote" in result.report.notes
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    w, b, v = (onnx.numpy_helper.to_array(tensor) for tensor in old_model(opset).graph.initializer)
    modern = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3,8,8] x) => (float[2,6,6,6] y) '
        "{ c = Conv(x, w, b) r = Relu(c) y = Conv(r, v) }"
    )
    modern.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for a, n in ((w, "w"), (b, "b"), (v, "v")))
    np.testing.assert_allclose(run(result.model, feeds)[0], run(modern, feeds)[0], rtol=1e-4, atol=1e-4)


def test_an_old_model_without_zeros_is_handed_back_as_it_is() -> None:
    model = old_model(6)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight(16, 3, 3, 3), "w"))
    result = prune(model, align=1)
    assert result.report.unchanged
    assert result.model is model


def test_what_onnx_cannot_convert_is_refused_with_its_reason() -> None:
    model = old_model(6)
    model.graph.node[2].op_type = "Upsample"
    with pytest.raises(PruneError, match=r"old: opset 6 is older than 7, and onnx cannot convert it: .*Upsample"):
        prune(model)
