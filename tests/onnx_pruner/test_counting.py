import math

import onnx
import onnx.parser
import pytest

from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.counting import count_macs, parameter_count
from onnx_shift.onnx_pruner.graph.network import payload_bytes


def _model(body: str, inputs: str, outputs: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["" : 13]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        kind = onnx.TensorProto.INT64 if name == "shape" else onnx.TensorProto.FLOAT
        zeros = [0] * math.prod(shape)
        model.graph.initializer.append(onnx.helper.make_tensor(name, kind, shape, zeros))
    return model


def test_convolution_counts_kernel_taps_of_every_output_position_in_its_group() -> None:
    body = "y = Conv<group = 2, pads = [1,1,1,1], strides = [2,2]>(x, w)"
    model = _model(body, "float[N,4,8,8] x", "float[N,6,4,4] y", w=(6, 2, 3, 3))
    assert count_macs(model) == 6 * 4 * 4 * 2 * 9


def test_transposed_convolution_counts_taps_of_every_input_position() -> None:
    body = "y = ConvTranspose<strides = [2,2]>(x, w)"
    model = _model(body, "float[N,4,3,3] x", "float[N,5,6,6] y", w=(4, 5, 2, 2))
    assert count_macs(model) == 4 * 9 * 5 * 4


@pytest.mark.parametrize(("trans_a", "shape"), [(0, "3,7"), (1, "7,3")])
def test_gemm_and_matmul(trans_a: int, shape: str) -> None:
    body = f"h = Gemm<transA = {trans_a}>(x, w)\n y = MatMul(h, v)"
    model = _model(body, f"float[{shape}] x", "float[3,2] y", w=(7, 5), v=(5, 2))
    assert count_macs(model) == 3 * 7 * 5 + 3 * 5 * 2


def test_macs_ignore_stale_shapes_and_follow_given_ones() -> None:
    model = _model("y = Conv(x, w)", "float[N,1,H,W] x", "float[N,2,H2,W2] y", w=(2, 1, 3, 3))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("y", 1, [1, 99, 99, 99]))
    assert count_macs(model) is None
    assert count_macs(model, {"x": (1, 1, 5, 6)}) == 2 * 3 * 4 * 9


QUANTISED = """
<ir_version: 8, opset_import: ["" : 13]> g (uint8[N,4,8,8] x) => (uint8[N,6,8,8] y)
<float s = {0.5}, uint8 z = {0}, int8 v = {0}>
{ y = QLinearConv<pads = [1,1,1,1]>(x, s, z, w, s, v, s, z) }
"""


def test_quantised_weights_count_as_parameters_and_are_said_to_stay() -> None:
    model = onnx.parser.parse_model(QUANTISED)
    kernel = onnx.helper.make_tensor("w", onnx.TensorProto.INT8, (6, 4, 3, 3), [0] * 216)
    model.graph.initializer.append(kernel)
    assert parameter_count(model) == 6 * 4 * 9 + 1  # and the scale
    assert count_macs(model) == 6 * 8 * 8 * 4 * 9
    assert prune(model, verify=False).report.notes == (
        "layers that compute in integers (QLinearConv) stay as they are: only quantised models in the "
        "QuantizeLinear–DequantizeLinear form are pruned",
    )


@pytest.mark.parametrize("kind", ["INT16", "UINT16", "INT8", "UINT4", "INT2", "FLOAT8E4M3FN", "FLOAT4E2M1"])
def test_weights_of_every_narrow_type_count_as_parameters(kind: str) -> None:
    if kind not in list(onnx.TensorProto.DataType.keys()):
        pytest.skip(f"this onnx has no {kind}")
    model = onnx.ModelProto()
    number = onnx.TensorProto.DataType.Value(kind)
    model.graph.initializer.append(onnx.helper.make_tensor("w", number, (8, 4), [0] * 32))
    model.graph.initializer.append(onnx.helper.make_tensor("zero", number, (8,), [0] * 8))
    assert parameter_count(model) == 32
    expected = {"INT16": 64, "UINT16": 64, "UINT4": 16, "FLOAT4E2M1": 16, "INT2": 8}.get(kind, 32)
    assert payload_bytes(model.graph.initializer[0]) == expected


def test_parameters_in_bodies_and_sparse_ones_count_and_whole_numbers_do_not() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]> g (float[N,4] x, bool b) => (float[N,2] y) {
        y = If (b) <
            then_branch = t () => (float[N,2] a) <float[4,2] w = {1,2,3,4,1,2,3,4}> { a = MatMul(x, w) },
            else_branch = e () => (float[N,2] c) { c = MatMul(x, w) }
        >
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.helper.make_tensor("places", onnx.TensorProto.INT64, (5, 5), [0] * 25))
    sparse = model.graph.sparse_initializer.add(dims=[6, 3])
    sparse.values.CopyFrom(onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, (1,), [1]))
    assert parameter_count(model) == 8 + 18
