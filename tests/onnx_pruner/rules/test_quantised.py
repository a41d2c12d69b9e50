"""Layers between QuantizeLinear and DequantizeLinear: constants move into biases in whole steps where that is exact."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.onnx_pruner import PruneResult, prune
from tests.onnx_pruner.conftest import Array, weight
from zoo.judge import judge

OUTPUTS, DEAD = 16, (0, 3, 8, 9)


@dataclass
class Quantised:
    """A network in the QuantizeLinear–DequantizeLinear form under construction: layers of int8 weights."""

    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def activation(self, x: str, scale: float, zero: int, kind: type = np.int8) -> str:
        parameters = [self.constant(f"{x}_scale", np.float32(scale)), self.constant(f"{x}_zero", kind(zero))]
        quantised = self.node("QuantizeLinear", [x, *parameters], f"{x}_q")
        return self.node("DequantizeLinear", [quantised, *parameters], f"{x}_dq")

    def stored(self, name: str, array: Array, scale: Array, kind: type, zero: int = 0) -> str:
        spread = np.reshape(scale, (-1,) + (1,) * (array.ndim - 1)) if np.ndim(scale) else scale
        limits = np.iinfo(kind)
        steps = np.clip(np.rint(array / spread) + zero, limits.min, limits.max).astype(kind)
        parameters = [self.constant(f"{name}_s", np.asarray(scale, np.float32))]
        parameters.append(self.constant(f"{name}_z", np.full(np.shape(scale), zero, kind)))
        axis = {"axis": 0} if np.ndim(scale) else {}
        return self.node("DequantizeLinear", [self.constant(f"{name}_i", steps), *parameters], name, **axis)

    def model(self, shape: tuple[int, ...], rank: int) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "quantised", [x], [y], self.weights)
        return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", self.opset)])


def network(
    *,
    biased: bool = True,
    per_channel: bool = True,
    size: int = 1,
    pads: int = 0,
    group: int = 1,
    bias_scale: float = 1.0,
    zero: int = 0,
    inner: tuple[float, int, type] = (0.04, -128, np.int8),
    op: str = "Conv",
) -> onnx.ModelProto:
    """Two layers; the `DEAD` outputs of the first are constants between 0.2 and 1, which the second reads."""
    g = Quantised()
    spatial = (size, size) if op == "Conv" else ()
    first = weight(OUTPUTS, 3, *(1,) * len(spatial), dead=DEAD)
    second = weight(8, OUTPUTS // group, *spatial, seed=1) / size
    layer: dict[str, object] = {"group": group, "pads": [pads] * 4} if op == "Conv" else {"transB": 1}
    steps = np.abs(first).reshape(OUTPUTS, -1).max(axis=1).clip(1e-3) / 127
    x = g.activation("x", 0.03, 0)
    w = g.stored("w1", first, steps, np.int8)
    b = g.stored("b1", np.linspace(0.2, 1, OUTPUTS), steps * 0.03, np.int32)
    g.node(op, [x, w, b], "h", **({"transB": 1} if op == "Gemm" else {}))
    r = g.activation(g.node("Relu", ["h"], "r"), *inner)
    steps = np.abs(second).reshape(8, -1).max(axis=1) / 120 if per_channel else np.float32(0.02)
    kind = np.uint8 if zero else np.int8
    inputs = [r, g.stored("w2", second, steps, kind, zero)]
    if biased:
        inputs.append(g.stored("b2", np.linspace(-1, 1, 8), steps * inner[0] * bias_scale, np.int32))
    g.node(op, inputs, "y", **layer)
    return g.model((3, 6, 6) if op == "Conv" else (3,), 4 if op == "Conv" else 2)


def pruned(model: onnx.ModelProto) -> PruneResult:
    onnx.checker.check_model(model, full_check=True)
    result = prune(model, align=1, verify=True)
    onnx.checker.check_model(result.model, full_check=True)
    assert judge(model, result.model).error <= 1
    return result


EXACT = [
    {}, {"per_channel": False}, {"size": 3}, {"group": 2}, {"biased": False}, {"biased": False, "per_channel": False},
    {"inner": (0.01, 0, np.uint8)}, {"zero": 128, "per_channel": False}, {"op": "Gemm"},
    {"op": "Gemm", "biased": False}, {"bias_scale": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("form", EXACT, ids=str)
def test_a_constant_of_whole_steps_moves_into_the_bias(form: dict[str, object]) -> None:
    result = pruned(network(**form))  # type: ignore[arg-type]
    assert result.report.channels_removed == len(DEAD)
    kinds = {tensor.data_type for tensor in result.model.graph.initializer if len(tensor.dims) > 1}
    assert kinds <= {TensorProto.INT8, TensorProto.UINT8}
    bias = [node for node in result.model.graph.node if node.op_type in ("Conv", "Gemm")][-1].input[2]
    maker = next(node for node in result.model.graph.node if bias in node.output)
    stored = next(tensor for tensor in result.model.graph.initializer if tensor.name == maker.input[0])
    assert stored.data_type == TensorProto.INT32


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"bias_scale": 0.7}, "a bias in whole steps, which not every constant adds to"),
        ({"size": 3, "pads": 1}, "read by Conv"),
    ],
)
def test_another_constant_stays_and_the_reason_is_said(form: dict[str, object], reason: str) -> None:
    result = pruned(network(**form))  # type: ignore[arg-type]
    assert result.report.channels_removed == 0
    assert [(len(kept.channels), reason in kept.reason) for kept in result.report.kept] == [(len(DEAD), True)]


def test_a_constant_that_is_zero_goes_before_padding_too() -> None:
    """At a step of 4 all of them are rounded to 0."""
    result = pruned(network(size=3, pads=1, inner=(4.0, -128, np.int8)))
    assert result.report.channels_removed == len(DEAD)
