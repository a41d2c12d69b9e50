"""Layers with weights, wherever they lie and however they are stored."""

import numpy as np
import onnx

from onnx_shift.onnx_pruner.graph.weighted import weighted_layers
from tests.onnx_pruner.conftest import build, weight

TEXT = """g (float[N,3,8,8] x, bool b) => (float[N,4,8,8] y) {
    m = Cast<to = 1>(mask)
    w = Mul(m, v)
    c = Conv(x, w)
    z = If (b) <then_branch = t () => (float[N,4,8,8] a) { a = Conv(c, u) },
                else_branch = e () => (float[N,4,8,8] d) { k = DequantizeLinear(q, s)  d = Conv(c, k) }>
    y = Relu(z)
}"""


def test_masked_quantised_and_inner_weights_are_found() -> None:
    arrays = {"mask": np.ones((8, 3, 1, 1), np.int8), "v": weight(8, 3, 1, 1), "u": weight(4, 8, 1, 1),
              "q": np.ones((4, 8, 1, 1), np.int8), "s": np.float32(1)}  # fmt: skip
    found = [
        (one.node.output[0], one.name, one.body, one.parameters)
        for one in weighted_layers(build(TEXT, arrays, 17).graph)
    ]
    assert found[0][:1] + found[0][2:] == ("c", "", 24)
    assert sorted(found[1:]) == [("a", "u", "If 'z'", 32), ("d", "q", "If 'z'", 32)]


def test_sparse_weights_are_read_dense() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }'
    )
    sparse = model.graph.sparse_initializer.add(dims=[4, 3])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.float32([1, 2]), "w"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.asarray([0, 5]), "w_places"))
    layer = next(weighted_layers(model.graph))
    assert (layer.sparse, layer.parameters, layer.values()[0, 0], layer.values()[1, 2]) == (True, 12, 1, 2)


def test_other_domains_count_whatever_they_are_called() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[N,4] x) => (float[N,3] y) {
        h = Relu(x) y = com.microsoft.FusedMatMul(h, w)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight(4, 3), "w"))
    assert [(one.node.op_type, one.foreign) for one in weighted_layers(model.graph)] == [("FusedMatMul", True)]
