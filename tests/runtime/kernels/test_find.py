import numpy as np

from onnx_shift.runtime.kernels.find import find_layers
from tests.runtime.kernels.networks import Writer


def test_weights_that_are_inputs_stay_dense() -> None:
    writer = Writer(np.random.default_rng(0))
    made = writer.add("Conv", "x", "w")
    assert find_layers(writer.model({"x": [1, 3, 8, 8], "w": [4, 3, 1, 1]}, made)) == []


def test_a_layer_is_found_with_what_follows_it() -> None:
    writer = Writer(np.random.default_rng(0))
    sum_ = writer.add("Add", writer.add("Conv", "x", writer.tensor(4, 4, 3, 3, zeros=0.75), pads=[1] * 4), "x")
    (layer,) = find_layers(writer.model({"x": [1, 4, 8, 8]}, writer.add("Relu", sum_)))
    assert (len(layer.covered), layer.residual, layer.activation) == (3, "x", "Relu")
    assert layer.zeros == 1 - np.count_nonzero(layer.weights) / 144 > 0.5
