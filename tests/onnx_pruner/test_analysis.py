"""What is needed, what is pinned, and which channels are tied."""

import numpy as np

from tests.onnx_pruner.conftest import ADDS_NOTHING, ITS_WEIGHTS, Exact, bias, weight


def test_a_branch_that_adds_nothing_needs_nothing(exact: Exact) -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,4] y) {{{ADDS_NOTHING}
        p = ReduceMean<axes=[1,2], keepdims=0>(r)
        y = MatMul(p, w2)
    }}"""
    pruned = exact(text, ITS_WEIGHTS)
    assert pruned.weight("a")[0] == 6
    assert pruned.operators() == ["Conv", "Transpose", "Identity", "ReduceMean", "MatMul"]
    assert [layer.after for layer in pruned.report.layers] == [(6, 3, 1, 1), (), (6, 4)]
    assert pruned.report.kept == ()


def test_intermediate_output_pins(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y, float[N,8,6,6] r) {
        a = Conv(x, w1)
        r = Relu(a)
        y = Conv(r, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2,)), "w2": weight(4, 8, 1, 1, seed=1)})
    assert pruned.weight("a")[0] == 8
    assert pruned.report.kept[0].reason.startswith("tied to 'r', a graph output")


def test_if_body_pins_what_it_captures(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x, bool c) => (float[N,4,6,6] y) {
        a = Conv(x, w1)
        b = If(c) <then_branch = one () => (float[M,8,6,6] p) { p = Relu(a) },
                   else_branch = two () => (float[M,8,6,6] q) { q = Neg(a) }>
        y = Conv(b, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2,)), "w2": weight(4, 8, 1, 1, seed=1)})
    assert pruned.weight("a")[0] == 8


def test_same_weight_in_two_layers(exact: Exact) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
        a = Conv(x, w, b)
        r = Relu(a)
        c = Conv(r, w, b)
        d = Relu(c)
        y = Conv(d, w3)
    }"""
    pruned = exact(text, {"w": weight(4, 4, 1, 1, dead=(2,)), "b": bias(4, _2=-1), "w3": weight(4, 4, 1, 1, seed=1)})
    # one weight of 4×4 is smaller than one of 3×4 and another of 3×3
    assert pruned.weight("a") == pruned.weight("c") == (4, 4, 1, 1)
    assert len([t for t in pruned.model.graph.initializer if len(t.dims) == 4]) == 2
    w = weight(4, 4, 1, 1, dead=(0, 2, 3), unread=(0, 2, 3))
    weights = {"w": w, "b": np.zeros(4, np.float32), "w3": weight(4, 4, 1, 1)}
    pruned = exact(text, weights)
    assert pruned.weight("a") == (1, 4, 1, 1)
    assert pruned.weight("c") == (1, 1, 1, 1)


def test_constant_branch_beside_channels_that_cannot_be_told_apart(exact: Exact) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,2,6,6] y) {
        a = Conv(x, w1, b1)
        n = LpNormalization<axis=1>(x)
        s = Mul(n, a)
        y = Conv(s, w2)
    }"""
    weights = {
        "w1": np.zeros((4, 4, 1, 1), np.float32),
        "b1": bias(4),
        "w2": weight(2, 4, 1, 1, unread=(1,), seed=1),
    }
    assert exact(text, weights).weight("y") == (2, 4, 1, 1)
