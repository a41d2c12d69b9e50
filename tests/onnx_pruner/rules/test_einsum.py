"""Einsum: channels summed over with weights, carried through, tied, or needed, by the place of their label."""

import pytest

from onnx_shift.onnx_pruner.rules.einsum import labels
from tests.onnx_pruner.conftest import Exact, bias, weight


def test_labels_of_each_spelling() -> None:
    assert labels("bchw, cd -> bdhw", [4, 2]) == ([("b", "c", "h", "w"), ("c", "d")], ("b", "d", "h", "w"))
    assert labels("ij,jk", [2, 2]) == ([("i", "j"), ("j", "k")], ("i", "k"))
    assert labels("...c,cd->...d", [3, 2]) == ([("…2", "…1", "c"), ("c", "d")], ("…2", "…1", "d"))
    assert labels("b...,...->b...", [3, 1]) == ([("b", "…2", "…1"), ("…1",)], ("b", "…2", "…1"))
    assert labels("ii->i", [2]) is None
    assert labels("ij->i", [3]) is None


#: Equation, shape of m, how many of the 8 channels of the layer before are left, of the constants 2 (0.7) and 5 (0)
#: and 6, which is unread where m has a slice of zeros for it on an axis of 8.
LAYERS = [
    ("bchw,cd->bdhw", (8, 4), 5),
    ("bchw,dc->bdhw", (4, 8), 5),
    ("dc,bchw->bdhw", (4, 8), 5),
    ("bchw,cd->bhwd", (8, 4), 5),
    ("bc...,cd->bd...", (8, 4), 5),
    ("bchw,cdh->bdw", (8, 4, 6), 5),
    ("bchw,cde->bdehw", (8, 3, 2), 6),  # what a constant adds differs from one e to the next
    ("bchw,hcd->bdhw", (6, 8, 4), 6),
    ("bchw,c->bhw", (8,), 6),
    ("bchw->bhw", None, 8),
]


@pytest.mark.parametrize(("equation", "shape", "left"), LAYERS, ids=[equation for equation, *_ in LAYERS])
def test_with_a_constant_operand(exact: Exact, equation: str, shape: tuple[int, ...] | None, left: int) -> None:
    operands = "r" if shape is None else "m, r" if equation.startswith("dc") else "r, m"
    rank = len(equation.split("->")[1].replace("...", "hw"))
    text = f"""g (float[B,3,6,6] x) => (float[{",".join("BCDEF"[:rank])}] y) {{
        h = Conv(x, w1, b1) r = Relu(h) z = Einsum<equation="{equation}">({operands}) y = Neg(z)
    }}"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-1)}
    if shape is not None:
        weights["m"] = weight(*shape, seed=1)
        weights["m"].swapaxes(0, shape.index(8))[6] = 0
    assert exact(text, weights).weight("h")[0] == left


CARRIED = [
    ("bchw,hw->bchw", (6, 6), 6),
    ("bchw,c->bchw", (8,), 6),
    ("bchw,hv->bcvw", (6, 6), 6),
]


@pytest.mark.parametrize(("equation", "shape", "left"), CARRIED, ids=[equation for equation, *_ in CARRIED])
def test_channels_that_pass_through(exact: Exact, equation: str, shape: tuple[int, ...], left: int) -> None:
    """Between two convolutions: 2 is constant and 5 zero, 6 unread; of constants only 0 passes."""
    text = f"""g (float[B,3,6,6] x) => (float[B,4,6,6] y) {{
        h = Conv(x, w1, b1) r = Relu(h) z = Einsum<equation="{equation}">(r, m) y = Conv(z, w2)
    }}"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-1), "m": weight(*shape, seed=1),
        "w2": weight(4, 8, 1, 1, unread=(6,)),
    }  # fmt: skip
    assert exact(text, weights).weight("h")[0] == left


def test_attention_by_einsum_loses_a_whole_head(exact: Exact) -> None:
    """Of 4 heads of 3 the values of the second are zero: its queries, keys and values go, and what reads it."""
    text = """g (float[B,5,6] x) => (float[B,5,6] y) {
        q = Einsum<equation="bsc,chd->bshd">(x, wq)
        k = Einsum<equation="bsc,chd->bshd">(x, wk)
        v = Einsum<equation="bsc,chd->bshd">(x, wv)
        s = Einsum<equation="bqhd,bkhd->bhqk">(q, k)
        p = Softmax<axis=-1>(s)
        o = Einsum<equation="bhqk,bkhd->bqhd">(p, v)
        y = Einsum<equation="bqhd,hdc->bqc">(o, wo)
    }"""
    values = weight(6, 4, 3, seed=3)
    values[:, 1] = 0
    weights = {"wq": weight(6, 4, 3), "wk": weight(6, 4, 3, seed=2), "wv": values, "wo": weight(4, 3, 6, dead=(2,))}
    pruned = exact(text, weights)
    assert [pruned.weight(name) for name in "qkvy"] == [(6, 2, 3)] * 3 + [(2, 3, 6)]


def test_two_activations_summed_over_their_channels_need_them(exact: Exact) -> None:
    text = """g (float[B,3,6,6] x) => (float[B,6,6,6,6] y) {
        h = Conv(x, w1) y = Einsum<equation="bchw,bcij->bhwij">(h, h)
    }"""
    assert exact(text, {"w1": weight(8, 3, 1, 1, dead=(2,))}).weight("h")[0] == 8
