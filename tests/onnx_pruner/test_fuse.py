"""BatchNormalization is folded where that changes nothing; channel shuffles are one permutation."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import Array, Exact, bias, build, ints, weight


def test_channel_shuffle_and_groups(exact: Exact) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
        a = Conv<group=2>(x, w1, b1)
        r = Relu(a)
        s1 = Reshape(r, split)
        t = Transpose<perm=[0,2,1,3,4]>(s1)
        s2 = Reshape(t, join)
        d = Conv<group=8, pads=[1,1,1,1]>(s2, wd)
        e = Conv<group=2>(d, w2)
        y = Conv(e, w3)
    }"""
    weights = {
        "w1": weight(8, 2, 1, 1, dead=(1, 5)), "b1": bias(8, _1=-1, _5=-1),
        "split": ints(0, 2, 4, 6, 6), "join": ints(0, 8, 6, 6),
        "wd": weight(8, 1, 3, 3, seed=1), "w2": weight(6, 4, 1, 1, dead=(0, 4), seed=2),
        "w3": weight(4, 6, 1, 1, seed=3),
    }  # fmt: skip
    pruned = exact(text, weights)
    # r[1] and r[5] become s2[2] and s2[3]: both in the first half, where w2 has its first group: kept, or equal counts
    assert pruned.weight("e")[0] == 4
    assert "Gather" in pruned.operators() or pruned.weight("a")[0] == 8
    weights["w1"] = weight(8, 2, 1, 1, dead=(1, 3, 5, 7))
    weights["b1"] = bias(8, _1=-1, _3=-1, _5=-1, _7=-1)
    pruned = exact(text, weights)
    assert pruned.weight("a")[0] == 4
    assert pruned.weight("e") == (4, 2, 1, 1)


NORM = {
    "g": weight(6, seed=11), "o": weight(6, seed=12), "m": weight(6, seed=13),
    "v": np.abs(weight(6, seed=14)) + 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "output", "layer", "weights"),
    [
        ("float[N,3,16,16] x", "float[N,6,8,16] y",
         "c = Conv(x, w) r = Relu(c) t = Transpose<perm=[0,2,1,3]>(r) z = Conv(t, v1)",
         {"w": weight(8, 3, 1, 1), "v1": weight(6, 16, 1, 1)}),
        ("float[N,6,4,4] x", "float[N,6,4,4] y", "k1 = Conv(k, w) z = Identity(k1)",
         {"k": weight(1, 4, 4, 4), "w": weight(6, 4, 1, 1)}),
        ("float[8,N] x", "float[N,6] y", "z = Gemm<transA=1>(x, w)", {"w": weight(8, 6)}),
        ("float[4,8] x", "float[4,6] y", "z = Gemm(x, w, rows)", {"w": weight(8, 6), "rows": weight(4, 6)}),
        ("float[N,8] x", "float[N,6] y",
         "d = DequantizeLinear(q, s) t = Transpose(d) z = MatMul(x, t)",
         {"q": np.arange(-24, 24, dtype=np.int8).reshape(6, 8), "s": np.float32(0.1)}),
    ],
    ids=["channels elsewhere", "constant map", "transposed input", "bias per row", "quantised"],
)  # fmt: skip
def test_a_norm_stays_behind_what_cannot_take_it(
    exact: Exact, inputs: str, output: str, layer: str, weights: Mapping[str, Array]
) -> None:
    joined = "y = Add(x, b)" if "k1" in layer else "y = Identity(b)"
    text = f"g ({inputs}) => ({output}) {{ {layer} b = BatchNormalization(z, g, o, m, v) {joined} }}"
    pruned = exact(text, {**weights, **NORM})
    assert "BatchNormalization" in pruned.operators()


def test_a_norm_stays_behind_a_foreign_operator() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]> g (float[N,3,4,4] x) => (float[N,6,4,4] y) '
        "{ c = com.acme.Conv(x, w) y = BatchNormalization(c, g, o, m, v) }"
    )
    arrays = {"w": weight(6, 3, 1, 1), **NORM}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    pruned = prune(model, verify=False).model
    assert [node.op_type for node in pruned.graph.node] == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize(("gain", "variance"), [(1, 100), (0.01, 60_000)], ids=["folds", "stays"])
def test_a_norm_folds_into_half_precision_only_without_loss(gain: float, variance: float) -> None:
    text = "g (float16[N,3,6,6] x) => (float16[N,6,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, o, m, v) }"
    half = {name: array.astype(np.float16) for name, array in {"w": weight(6, 3, 1, 1), **NORM}.items()}
    half["g"], half["v"] = half["g"] * np.float16(gain), np.full(6, variance, np.float16)
    pruned = prune(build(text, half, 17), verify=False).model
    assert [node.op_type for node in pruned.graph.node] == ["Conv", *["BatchNormalization"] * (gain < 1)]
