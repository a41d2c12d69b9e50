"""Models that onnxruntime's optimiser wrote: its fused layers lose channels and stay fused."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_shift.onnx_pruner import PruneResult, prune
from tests.onnx_pruner.conftest import Array, bias, build, ints, weight
from zoo.judge import judge

ACTIVATIONS = [
    "r = Relu(c)", "r = LeakyRelu<alpha=0.2>(c)", "r = Sigmoid(c)", "r = Tanh(c)", "r = HardSigmoid<alpha=0.3>(c)",
    "lo = Constant<value_float=-0.3>() hi = Constant<value_float=0.6>() r = Clip(c, lo, hi)",
]  # fmt: skip
LEVELS = onnxruntime.GraphOptimizationLevel


def optimised(model: onnx.ModelProto, folder: Path, level: LEVELS = LEVELS.ORT_ENABLE_EXTENDED) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def pruned_exactly(model: onnx.ModelProto, removed: int) -> PruneResult:
    result = prune(model, align=1, verify=True)
    assert judge(model, result.model).error <= 1
    assert result.report.channels_removed == removed
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda text: text.split("= ")[-1].split("(")[0].split("<")[0])
def test_a_fused_convolution_loses_channels_and_stays_fused(activation: str, tmp_path: Path) -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,4,6,6] y) {{
        c = Conv<pads=[1,1,1,1]>(x, w1, b1) {activation} y = Conv(r, w2)
    }}"""
    weights = {"w1": weight(16, 3, 3, 3, dead=(1, 4, 5)), "b1": bias(16), "w2": weight(4, 16, 1, 1, unread=(9,))}
    fused = optimised(build(text, weights, 17), tmp_path)
    assert operators(fused) == ["FusedConv", "Conv"]
    result = pruned_exactly(fused, 4)
    assert operators(result.model) == ["FusedConv", "Conv"]
    assert len(result.model.graph.initializer) == 4


@pytest.mark.parametrize("activation", ACTIVATIONS[:5], ids=lambda text: text[4:8])
def test_a_fused_matrix_product_loses_features_and_stays_fused(activation: str, tmp_path: Path) -> None:
    text = f"g (float[N,8] x) => (float[N,4] y) {{ c = Gemm<transB=1>(x, w1, b1) {activation} y = Gemm(r, w2, b2) }}"
    weights = {"w1": weight(16, 8, dead=(1, 4, 5)), "b1": bias(16), "w2": weight(16, 4, dead=(9,)), "b2": bias(4)}
    fused = optimised(build(text, weights, 17), tmp_path)
    assert operators(fused) == ["FusedGemm", "Gemm"]
    assert operators(pruned_exactly(fused, 4).model) == ["FusedGemm", "Gemm"]


def fused_sum(parameters: Mapping[str, object]) -> onnx.ModelProto:
    """A residual block whose last layer is a FusedConv with a sum, as on accelerators."""
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        a = Conv(x, w1, b1) r = Relu(a) s = Conv<pads=[1,1,1,1]>(r, w2, b2) y = Conv(s, w3)
    }"""
    weights: dict[str, Array] = {
        "w1": weight(8, 3, 1, 1, dead=(1, 2)), "b1": bias(8, _2=-1, _1=0), "w2": weight(8, 8, 3, 3, dead=(1, 2, 3)),
        "b2": bias(8, _1=0, _2=-2), "w3": weight(4, 8, 1, 1, unread=(6,)),
    }  # fmt: skip
    model = build(text, weights, 17)
    node = model.graph.node[2]
    node.op_type, node.domain = "FusedConv", "com.microsoft"
    node.input.append("r")
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in parameters.items())
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize(
    "parameters", [{}, {"activation": "Relu"}, {"activation": "LeakyRelu", "activation_params": [0.3]}]
)
def test_a_fused_sum_ties_what_it_adds(parameters: Mapping[str, object]) -> None:
    """Of 8 channels 1 and 2 are constant in the block and beside it; 6 is unread in the end, but not in the block."""
    result = pruned_exactly(fused_sum(parameters), 4)
    assert operators(result.model) == ["Conv", "Relu", "FusedConv", "Conv"]
    assert list(next(t for t in result.model.graph.initializer if t.name == "w2").dims) == [6, 6, 3, 3]


def test_what_does_not_change_stays_as_it_was(tmp_path: Path) -> None:
    text = "g (float[N,3,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2) }"
    model = build(text, {"w1": weight(8, 3, 3, 3), "b1": bias(8), "w2": weight(4, 8, 1, 1)}, 17)
    fused = optimised(model, tmp_path)
    assert prune(fused).model is fused


@pytest.mark.parametrize("turned", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("left", [False, True])
def test_a_fused_product_with_a_matrix_is_a_layer(turned: tuple[int, int], left: bool) -> None:
    """Channels are the 8 of a convolution (one constant, two zero) and go into the matrix, whichever way it lies."""
    a, b = turned
    channels_last = (left and b) or (not left and not a)
    order = "m, t" if left else "t, m"
    matrix = weight(5, 8) if left != bool(a if left else b) else weight(8, 5)
    turn = "t = Transpose<perm=[0,2,1]>(f)" if channels_last else "t = Identity(f)"
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 17, "com.microsoft": 1]>
    g (float[N,3,4,4] x) => (float[N,P,Q] y) {{
        c = Conv(x, w1, b1) r = Relu(c) f = Reshape(r, shape) {turn}
        z = com.microsoft.FusedMatMul<transA={a}, transB={b}, alpha=0.5>({order}) y = Relu(z)
    }}""")
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(1, 2, 3)),
        "b1": bias(8, _2=-1, _3=0),
        "m": matrix,
        "shape": ints(0, 8, 16),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    result = pruned_exactly(model, 3)
    assert result.model.graph.node[-1].op_type == "Relu"
    assert "FusedMatMul" in operators(result.model)


@pytest.mark.parametrize(
    "body", ["BiasGelu(c, g)", "FastGelu(c, g)", "FastGelu(c)", "Gelu(c)", "QuickGelu<alpha=1.5>(c)"]
)
def test_its_activations_carry_channels(body: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 17, "com.microsoft": 1]>
    g (float[N,3,4] x) => (float[N,3,2] y) {{ c = MatMul(x, w1) r = com.microsoft.{body} y = MatMul(r, w2) }}""")
    matrix = weight(4, 8)
    matrix[:, [1, 5]] = 0
    weights = {"w1": matrix, "g": bias(8), "w2": weight(8, 2)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(v, k) for k, v in weights.items() if k != "g" or "g)" in body
    )
    pruned_exactly(model, 2)


def test_blocked_layers_are_named_and_left(tmp_path: Path) -> None:
    text = """g (float[1,3,8,8] x) => (float[1,16,8,8] y) {
        c = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(c) y = Conv(r, w2) }"""
    weights = {"w1": weight(32, 3, 3, 3, dead=(1, 4, 5)), "b1": bias(32), "w2": weight(16, 32, 1, 1)}
    blocked = optimised(build(text, weights, 17), tmp_path, LEVELS.ORT_ENABLE_ALL)
    if "ReorderOutput" not in operators(blocked):
        pytest.skip("no blocked layout on this processor")
    result = prune(blocked)
    assert result.report.unchanged
    assert any("prune the model before optimising it" in note for note in result.report.notes)
