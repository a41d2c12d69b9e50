"""On plain chains the pruner leaves no more parameters than the oracle of the fixed point."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.onnx_pruner import prune
from zoo import zeros
from zoo.judge import judge
from zoo.oracle import Layer, constant_output, fewest_parameters


def random_chain(seed: int) -> list[Layer]:
    """Return 2 to 6 convolutions and a classifier; biases of dead filters are of both signs, or zero."""
    rng = np.random.default_rng(seed)
    density = rng.choice([0.9, 0.5, 0.2, 0.08])
    chain, width = [], 3
    for _ in range(rng.integers(2, 7)):
        outputs, size = int(rng.integers(2, 20)), int(rng.choice([1, 3]))
        weight = rng.standard_normal((outputs, width, size, size)) * (rng.random((outputs, width, 1, 1)) < density)
        weight[rng.random(outputs) < 0.3] = 0
        bias = rng.standard_normal(outputs) * (rng.random(outputs) < 0.8)
        padded = size == 3 and bool(rng.random() < 0.5)
        chain.append(Layer(weight.astype(np.float32), bias.astype(np.float32), padded, bool(rng.random() < 0.7)))
        width = outputs
    weight = rng.standard_normal((5, width, 1, 1)) * (rng.random((5, width, 1, 1)) < max(density, 0.5))
    chain.append(Layer(weight.astype(np.float32), rng.standard_normal(5).astype(np.float32), False, False))
    return chain


def as_model(chain: list[Layer]) -> onnx.ModelProto:
    """Return the chain as convolutions, and its last layer as Gemm over the flattened global average."""
    nodes, weights, name = [], [], "x"
    for k, layer in enumerate(chain[:-1]):
        weights += [
            numpy_helper.from_array(layer.weight, f"w{k}"),
            numpy_helper.from_array(layer.bias, f"b{k}"),
        ]
        size = layer.weight.shape[-1]
        pads = [size // 2 if layer.padded else 0] * 4
        nodes.append(helper.make_node("Conv", [name, f"w{k}", f"b{k}"], [f"c{k}"], kernel_shape=[size] * 2, pads=pads))
        name = f"c{k}"
        if layer.relu:
            nodes.append(helper.make_node("Relu", [name], [f"r{k}"]))
            name = f"r{k}"
    nodes += [helper.make_node("GlobalAveragePool", [name], ["g"]), helper.make_node("Flatten", ["g"], ["f"])]
    nodes.append(helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1))
    last = chain[-1]
    weights += [
        numpy_helper.from_array(last.weight[:, :, 0, 0], "w"),
        numpy_helper.from_array(last.bias, "b"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 20, 20])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_the_oracle_counts_a_chain_worked_out_by_hand() -> None:
    """Of four filters two are dead: one is constantly 2, which a padded reader must keep, one is 0."""
    first = np.ones((4, 1, 1, 1))
    first[[1, 2]] = 0
    second = np.ones((3, 4, 3, 3))
    second[:, 3] = 0
    chain = [Layer(first, np.array([1, 2, -1, 1.0]), False, True), Layer(second, np.ones(3), True, False)]
    assert [constant_output(chain[0], o, [None]) for o in range(4)] == [None, 2, 0, None]
    assert fewest_parameters(chain) == (2 * 1 + 2) + (3 * 2 * 9 + 3)
    unpadded = [chain[0], Layer(second, np.ones(3), False, False)]
    assert fewest_parameters(unpadded) == (1 * 1 + 1) + (3 * 1 * 9 + 3)


@pytest.mark.parametrize("seed", range(60))
def test_no_more_parameters_than_the_oracle(seed: int) -> None:
    chain = random_chain(seed)
    model = as_model(chain)
    pruned = prune(model, align=1, verify=False).model
    assert judge(model, pruned).error <= 1
    assert zeros.parameters(pruned) <= fewest_parameters(chain)
