"""Channels through sums, and through quantised activations."""

import numpy as np

from tests.onnx_pruner.conftest import Exact, bias, weight


def test_residual_stream_shrinks_when_zeros_are_aligned(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        b = Conv<pads=[1,1,1,1]>(a, w2, b2)
        r = Relu(b)
        c = Conv<pads=[1,1,1,1]>(r, w3)
        s = Add(a, c)
        t = Relu(s)
        y = Conv<pads=[1,1,1,1]>(t, w4)
    }"""
    pruned = exact(
        text,
        {
            "w1": weight(8, 3, 3, 3, dead=(1, 4)), "b1": bias(8, _1=0, _4=-1),
            "w2": weight(8, 8, 3, 3, dead=(0,), seed=1), "b2": bias(8, _0=-3),
            "w3": weight(8, 8, 3, 3, dead=(1, 4), seed=2), "w4": weight(4, 8, 3, 3, seed=3),
        },
    )  # fmt: skip
    # channel 4 is the constant -1 and is read by the padded w2, so it stays; channel 1 is removed from the whole stream
    assert pruned.weight("a") == (7, 3, 3, 3)
    assert pruned.weight("b") == (7, 7, 3, 3)
    assert pruned.weight("c") == (7, 7, 3, 3)
    assert pruned.weight("y") == (4, 7, 3, 3)


def test_zeros_pass_quantised_activations(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1, b1)
        r = Relu(c)
        q = QuantizeLinear(r, s, z)
        d = DequantizeLinear(q, s, z)
        y = Conv<pads=[1,1,1,1]>(d, w2)
    }"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(1, 2, 5)),
        "b1": bias(8, _1=0, _2=-1, _5=0.3),
        "w2": weight(4, 8, 3, 3),
    }
    for scale, zero, left in (
        (np.float32(0.1), np.uint8(3), 6),
        (np.full(8, 0.07, np.float32), np.zeros(8, np.uint8), 6),
    ):
        pruned = exact(text, {**weights, "s": scale, "z": zero}, opset=13)
        assert pruned.weight("c") == (left, 3, 1, 1)


def test_a_constant_between_two_steps_of_quantisation_stays(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1, b1)
        q = QuantizeLinear(c, s, z)
        d = DequantizeLinear(q, s, z)
        y = Conv(d, w2)
    }"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(1, 2)),
        "b1": bias(8, _1=0.25, _2=0.2),
        "w2": weight(4, 8, 1, 1),
    }
    pruned = exact(text, {**weights, "s": np.float32(0.1), "z": np.uint8(0)}, opset=13)
    assert pruned.weight("c") == (7, 3, 1, 1)
