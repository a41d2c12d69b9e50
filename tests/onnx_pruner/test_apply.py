"""The cut: branches replaced by constants, biases moved."""

import numpy as np
import pytest

from tests.onnx_pruner.conftest import Exact, bias, weight


def test_collapsed_branch_is_replaced_by_its_constant(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        a = Conv(x, w1, b1)
        b = Conv<pads=[1,1,1,1]>(a, w2, b2)
        r = Relu(b)
        c = Conv<pads=[1,1,1,1]>(r, w3, b3)
        s = Add(a, c)
        y = Conv<pads=[1,1,1,1]>(s, w4)
    }"""
    weights = {
        "w1": weight(8, 3, 1, 1), "b1": bias(8), "w2": weight(8, 8, 3, 3, seed=1), "b2": bias(8),
        "w3": np.zeros((8, 8, 3, 3), np.float32), "b3": bias(8), "w4": weight(4, 8, 3, 3, seed=3),
    }  # fmt: skip
    assert exact(text, weights).operators().count("Conv") == 2
    weights["b3"] = np.zeros(8, np.float32)
    assert exact(text, weights).operators() == ["Conv", "Identity", "Conv"]


@pytest.mark.parametrize(
    ("shape", "left", "added"),
    [
        ((4,), False, 1),
        ((1, 1, 4), False, 1),
        ((7, 4), False, 1),
        ((1,), False, 1),
        ((7, 1), False, 2),
        ((4, 1), True, 1),
    ],
)
def test_a_bias_goes_into_the_constant_that_is_added_next(
    exact: Exact, shape: tuple[int, ...], left: bool, added: int
) -> None:
    first, last = ("MatMul(w1, x)", "MatMul(w2, r)") if left else ("MatMul(x, w1)", "MatMul(r, w2)")
    text = f"""g (float[N,{"3,7" if left else "7,3"}] x) => (float[N,P,Q] y) {{
        a = {first}
        b = Add(a, b1)
        r = Tanh(b)
        c = {last}
        y = Add(b2, c)
        z = Add(b2, x)
    }}"""
    text = text if shape == (1,) else text.replace("z = Add(b2, x)", "")
    w1, w2 = weight(3, 8), weight(8, 4, seed=1)
    w1[:, [2, 5]] = 0
    b1 = bias(8)
    if left:
        w1, w2, b1 = w1.T, w2.T, b1[:, None]
    pruned = exact(text, {"w1": w1, "b1": b1, "w2": w2, "b2": weight(*shape, seed=2)})
    assert pruned.weight("a", 0 if left else 1)[1 if left else 0] == 3
    assert pruned.operators() == ["MatMul", "Add", "Tanh", "MatMul", *["Add"] * added]


def test_a_bias_stays_apart_from_what_is_not_its_own(exact: Exact) -> None:
    text = """g (float[N,7,3] x) => (float[N,7,4] y, float[N,7,4] z, float[N,7,4] o) {
        a = MatMul(x, w1)
        b = Add(a, b1)
        r = Tanh(b)
        c = MatMul(r, w2)
        y = Add(c, b2)
        z = Mul(c, b2)
        d = MatMul(r, w3)
        e = DequantizeLinear(q, s)
        o = Add(d, e)
    }"""
    w1 = weight(3, 8)
    w1[:, [2, 5]] = 0
    weights = {"w1": w1, "b1": bias(8), "w2": weight(8, 4, seed=1), "b2": bias(4), "w3": weight(8, 4, seed=2),
               "q": np.asarray([1, -2, 3, 4], np.int8), "s": np.float32(0.3)}  # fmt: skip
    pruned = exact(text, weights)
    assert pruned.weight("a") == (3, 6)
    assert pruned.operators().count("Add") == 5
