"""Sizes known before the model runs, and those that are not."""

import numpy as np

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import Exact, bias, build, ints, weight


def test_shapes_computed_at_run_time(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,5] y, int64[4] sizes) {
        a = Conv<pads=[1,1,1,1]>(x, w1)
        sizes = Shape(a)
        b = Shape(a)
        n = Gather(b, zero)
        c = Gather(b, one)
        h = Gather(b, two)
        w = Gather(b, three)
        hw = Mul(h, w)
        n1 = Unsqueeze(n, zero)
        c1 = Unsqueeze(c, zero)
        hw1 = Unsqueeze(hw, zero)
        target = Concat<axis=0>(n1, c1, hw1)
        f = Reshape(a, target)
        m = ReduceMean<axes=[2], keepdims=0>(f)
        y = Gemm(m, w2)
    }"""
    weights = {"w1": weight(8, 3, 3, 3, dead=(2, 5)), "w2": weight(8, 5, seed=1)} | {
        name: np.asarray(k, np.int64) for k, name in enumerate(("zero", "one", "two", "three"))
    }
    assert exact(text, weights).weight("a")[0] == 6


def test_a_resize_by_computed_scales_tells_no_size(exact: Exact) -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4,A,B] y) {
        t = Transpose<perm=[0,2,3,1]>(x)
        most = ReduceMax<keepdims=0>(x)
        nothing = Mul(most, zero)
        scales = Add(two, nothing)
        z = Resize<mode="nearest">(t, , scales)
        back = Transpose<perm=[0,3,1,2]>(z)
        a = Conv(back, w1, b1)
        r = Relu(a)
        s = Shape(r)
        h = Gather(s, at)
        to = Concat<axis=0>(one, count, h, rest)
        q = Reshape(r, to)
        y = Conv(q, w2)
    }"""
    weights = {
        "zero": np.float32(0), "two": np.asarray([1, 2, 2, 1], np.float32), "at": ints(2), "one": ints(1),
        "count": ints(16), "rest": ints(-1), "w1": weight(16, 3, 1, 1, dead=(1, 2)), "b1": -bias(16),
        "w2": weight(4, 16, 1, 1),
    }  # fmt: skip
    exact(text, weights)


def test_an_output_without_a_shape_is_given_the_one_that_follows() -> None:
    model = build(
        "g (float[N,3,4,4] x) => (float[N,5,4,4] y) { c = Conv(x, a) r = Relu(c) y = Conv(r, b) }",
        {"a": weight(8, 3, 1, 1, dead=(1, 2)), "b": weight(5, 8, 1, 1)},
        17,
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    pruned = prune(model, align=1)
    assert pruned.report.verified
    assert pruned.report.parameters_after == 6 * 3 + 5 * 6
