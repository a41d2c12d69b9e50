"""Which nodes become ours, what is fused into them, and which activations go packed."""

from collections import Counter

import numpy as np
import onnx
import pytest

from tests.runtime.kernels.networks import Writer, difference, rewritten


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def _residual_block() -> onnx.ModelProto:
    writer = Writer(np.random.default_rng(0))
    first = writer.add("Relu", writer.add("Conv", "x", writer.tensor(8, 3, 3, 3, zeros=0.8), pads=[1] * 4))
    pooled = writer.add("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2])
    second = writer.add("Conv", pooled, writer.tensor(8, 8, 3, 3, zeros=0.8), pads=[1] * 4)
    third = writer.add("Relu", writer.add("Add", pooled, second))
    return writer.model({"x": ["N", 3, 12, 12]}, writer.add("GlobalAveragePool", third))


def test_a_residual_block_becomes_two_layers_and_a_pool() -> None:
    ours = rewritten(_residual_block())
    assert _operators(ours) == {"SparseConv": 2, "PackedMaxPool": 1, "GlobalAveragePool": 1}
    borders = [list(a.ints) for node in ours.graph.node for a in node.attribute if a.name == "borders"]
    assert borders == [[-1, -1, 0, 0, -1, -1], [0, 0, 1, 1, -1, -1], [1, 1, -1, -1, 1, 1]]


@pytest.mark.parametrize("images", [1, 4, 16, 33])
def test_packed_activations_give_the_same_answers(level: str, images: int) -> None:
    x = np.random.default_rng(images).standard_normal((images, 3, 12, 12)).astype(np.float32)
    assert difference(_residual_block(), {"x": x}) < 1e-5


def test_what_others_read_stays_plain() -> None:
    writer = Writer(np.random.default_rng(0))
    first = writer.add("Conv", "x", writer.tensor(4, 3, 3, 3), pads=[1] * 4)
    second = writer.add("Conv", first, writer.tensor(4, 4, 3, 3), pads=[1] * 4)
    model = writer.model({"x": [1, 3, 8, 8]}, writer.add("Concat", first, second, axis=1))
    assert all(-1 in a.ints for node in rewritten(model).graph.node for a in node.attribute if a.name == "borders")


def test_an_added_value_of_another_shape_is_not_fused() -> None:
    writer = Writer(np.random.default_rng(0))
    made = writer.add("Add", writer.add("Conv", "x", writer.tensor(4, 3, 1, 1)), "bias")
    model = writer.model({"x": [1, 3, 8, 8], "bias": [1, 4, 1, 1]}, made)
    assert _operators(rewritten(model)) == {"SparseConv": 1, "Add": 1}
