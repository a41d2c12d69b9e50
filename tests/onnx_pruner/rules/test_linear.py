"""Channels through convolutions and matrix products."""

import numpy as np
import pytest

from tests.onnx_pruner.conftest import Exact, bias, ints, weight


@pytest.mark.parametrize("product", ["MatMul(features, column)", "MatMul(row, turned)"])
def test_what_a_product_does_not_sum_over_passes_through(exact: Exact, product: str) -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,4] y) {{
        a = Conv(x, w1)
        b = Conv(x, w2)
        features = Reshape(a, eight)
        turned = Transpose<perm=[0,2,1]>(features)
        row = Reshape(b, one)
        column = Transpose<perm=[0,2,1]>(row)
        m = {product}
        f = Flatten(m)
        y = Gemm(f, w3)
    }}"""
    arrays = {
        "eight": ints(0, 8, -1),
        "one": ints(0, 1, -1),
        "w2": weight(1, 3, 1, 1, seed=1),
        "w3": weight(8, 4),
    }
    pruned = exact(text, {**arrays, "w1": weight(8, 3, 1, 1, dead=(2, 5))})
    assert pruned.weight("a")[0] == 6
    assert pruned.weight("y") == (6, 4)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_conv_transpose(exact: Exact, groups: int) -> None:
    text = f"""g (float[N,3,5,5] x) => (float[N,2,H,W] y) {{
        a = Conv(x, w1, b1)
        r = Relu(a)
        b = ConvTranspose<group={groups}, strides=[2,2], kernel_shape=[3,3], pads=[1,1,1,1]>(r, w2, b2)
        c = BatchNormalization(b, gamma, beta, mean, var)
        y = Conv(c, w3)
    }}"""
    w2 = weight(8, 8 // groups, 3, 3, seed=1)
    if groups == 1:
        w2[:, [0, 4]] = 0
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(1, 5, 6)), "b1": bias(8, _1=-1, _5=-1), "w2": w2, "b2": bias(8),
        "w3": weight(2, 8, 1, 1, unread=(3,), seed=2),
        "gamma": bias(8, _2=0), "beta": bias(8), "mean": bias(8), "var": bias(8),
    }  # fmt: skip
    pruned = exact(text, weights)
    assert "BatchNormalization" not in pruned.operators()
    expected = {1: ((6, 4), 6), 2: ((6, 4), 6), 8: ((4, 1), 4)}[groups]
    made = next(o for n in pruned.model.graph.node if n.op_type == "ConvTranspose" for o in n.output)
    assert pruned.weight(made)[:2] == expected[0]
    assert pruned.weight("a")[0] == expected[1]


def test_matmul_chain_on_the_last_axis(exact: Exact) -> None:
    text = """g (float[N,7,3] x) => (float[N,7,4] y) {
        a = MatMul(x, w1)
        b = Add(a, b1)
        r = Gelu(b)
        c = MatMul(r, w2)
        y = Add(c, b2)
    }"""
    w1, w2 = weight(3, 8), weight(8, 4, seed=1)
    w1[:, [2, 5]] = 0
    w2[6] = 0
    pruned = exact(text, {"w1": w1, "b1": bias(8), "w2": w2, "b2": bias(4)}, opset=20)
    assert pruned.weight("a") == (3, 5)


def test_matmul_with_the_weight_on_the_left(exact: Exact) -> None:
    text = """g (float[N,3,7] x) => (float[N,4,7] y) {
        a = MatMul(w1, x)
        r = Relu(a)
        y = MatMul(w2, r)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, dead=(2, 5)), "w2": weight(4, 8, unread=(6,), seed=1)})
    assert pruned.weight("a", 0) == (5, 3)
    assert pruned.weight("y", 0) == (4, 5)


def test_weights_in_blocks_are_left_alone(exact: Exact) -> None:
    text = """g (float[N,16] x) => (float[N,4] y) {
        w = DequantizeLinear<axis=1, block_size=4>(q, s)
        c = Gemm<transB=1>(x, w)
        r = Relu(c)
        y = MatMul(r, w2)
    }"""
    q = np.random.default_rng(0).integers(-7, 7, (8, 16)).astype(np.int8)
    q[2:4] = 0
    weights = {"q": q, "s": np.abs(weight(8, 4)) + 0.1, "w2": weight(8, 4)}
    assert exact(text, weights, opset=21).report.channels_removed == 0
