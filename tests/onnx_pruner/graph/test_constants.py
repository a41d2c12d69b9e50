"""Values that do not depend on the input."""

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from tests.onnx_pruner.conftest import Exact, bias, build, weight


def test_a_constant_of_nothing_is_refused() -> None:
    nothing = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { k = Constant () y = Add (x, k) }'
    )
    with pytest.raises(PruneError, match="onnxruntime cannot run it"):
        prune(nothing)


def test_weights_behind_other_nodes(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4] y) {
        i = Identity(w1)
        a = Conv(x, i)
        r = Relu(a)
        m = GlobalAveragePool(r)
        f = Flatten(m)
        t = Transpose<perm=[1,0]>(w2)
        y = MatMul(f, t)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, unread=(6,), seed=1)})
    assert pruned.weight("a")[0] == 5
    assert pruned.weight("y") == (5, 4)


def test_weights_of_eight_bit_floats_are_no_whole_numbers(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        w = DequantizeLinear(q, s)
        c = Conv(x, w)
        r = Relu(c)
        y = Conv(r, w2)
    }"""
    small = (weight(8, 3, 1, 1, dead=(1,)) / 4).astype(ml_dtypes.float8_e4m3fn)
    pruned = exact(text, {"q": small, "s": np.float32(1), "w2": weight(4, 8, 1, 1)}, opset=19)
    assert pruned.report.channels_removed == 1


def test_numbers_outside_their_type_are_no_constants(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1, b1)
        u = Cast<to=13>(c)
        f = Cast<to=1>(u)
        y = Conv(f, w2)
    }"""
    weights = {"w1": np.zeros((8, 3, 1, 1), np.float32), "b1": bias(8, _1=-2.5), "w2": weight(4, 8, 1, 1)}
    model = build(text, weights, 17)
    assert prune(model, align=1, verify=False).report.channels_removed < 8


def test_constants_behind_a_thousand_nodes_are_known(exact: Exact) -> None:
    chain = " ".join(f"k{k + 1} = Add(k{k}, zero)" for k in range(1000))
    text = f"g (float[N,3,4,4] x) => (float[N,4,4,4] y) {{ {chain} c = Conv(x, k1000) y = Conv(c, b) }}"
    weights = {"k0": weight(8, 3, 1, 1, dead=(1, 2)), "zero": np.float32(0), "b": weight(4, 8, 1, 1)}
    assert exact(text, weights).weight("c") == (6, 3, 1, 1)
