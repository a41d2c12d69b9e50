"""What a file says of a layer is checked when its kernel is created; what a request says, when it runs."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.runtime.kernels.networks import Writer, rewritten, session


def _model() -> onnx.ModelProto:
    """One layer of ours, 3x3 over 6 channels."""
    writer = Writer(np.random.default_rng(0))
    made = writer.add("Conv", "x", writer.tensor(4, 6, 3, 3, zeros=0.5), writer.tensor(4), pads=[1, 1, 1, 1])
    return rewritten(writer.model({"x": ["N", 6, "H", "W"]}, made))


def _node(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "SparseConv")


def _change(model: onnx.ModelProto, name: str, value: object) -> None:
    node = _node(model)
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _tensor(model: onnx.ModelProto, place: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    name = _node(model).input[place]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def _set(place: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


PLACES, ROWS, BIAS = 2, 3, 4
MALFORMED = {
    "does not span": (lambda model: _tensor(model, ROWS, _set(0, 1)), "do not span"),
    "ends behind": (lambda model: _tensor(model, ROWS, _set(-1, 1 << 30)), "do not span"),
    "decreases": (lambda model: _tensor(model, ROWS, _set(2, -5)), "decrease"),
    "too few rows": (lambda model: _tensor(model, ROWS, lambda rows: rows[:-1]), "number of row pointers"),
    "place outside": (lambda model: _tensor(model, PLACES, _set(0, 60000)), "outside its block"),
    "too few places": (lambda model: _tensor(model, PLACES, lambda places: places[:-1]), "differ in length"),
    "too short a bias": (lambda model: _tensor(model, BIAS, lambda bias: bias[:-1]), "differ in length"),
    "no channels": (lambda model: _change(model, "channels", 0), "differ in length"),
    "huge": (lambda model: _change(model, "group_channels", 1 << 40), "not positive, or too large"),
    "huge kernel": (lambda model: _change(model, "kernel", [1 << 20, 1 << 20]), "more places than 16 bits"),
    "negative pads": (lambda model: _change(model, "pads", [-1, 0, 0, 0]), "pad is negative"),
    "other groups": (lambda model: _change(model, "group", 3), "no multiple of the groups"),
    "half a border": (lambda model: _change(model, "borders", [1, -1, -1, -1, -1, -1]), "half stated"),
    "no activation": (lambda model: _change(model, "activation", 99), "no such activation"),
    "three dimensions": (lambda model: _change(model, "dimensions", 3), "one or two dimensions"),
    "too few strides": (lambda model: _change(model, "strides", [1]), "too few numbers"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_layer_is_refused(kind: str) -> None:
    change, message = MALFORMED[kind]
    model = _model()
    change(model)
    with pytest.raises(Exception, match=message):
        session(model)


def test_weights_that_a_request_gives_are_refused() -> None:
    model = _model()
    name = _node(model).input[ROWS]
    model.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None))
    with pytest.raises(Exception, match="must be constant"):
        session(model)


@pytest.mark.parametrize("shape", [(1, 5, 4, 4), (1, 6, 0, 4), (1, 6, 4)])
def test_a_request_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model = _model()
    _change(model, "pads", [0, 0, 0, 0])
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match=r"smaller than the kernel|rank or channels"):
        session(model).run(None, {"x": np.zeros(shape, np.float32)})


def test_instructions_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "avx1024")
    model = _model()
    with pytest.raises(Exception, match="this processor has not"):
        session(model)
