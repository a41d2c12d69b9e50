"""Channels through Concat, Split, Slice, Gather and Pad."""

import pytest

from tests.onnx_pruner.conftest import Exact, bias, ints, weight


def test_concat_joins_and_split_parts(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        a = Conv(x, w1)
        b = Conv(x, w2)
        c = Concat<axis=1>(a, x, b)
        p, q = Split<axis=1>(c, sizes)
        r = Concat<axis=1>(q, p)
        y = Conv(r, w3)
    }"""
    pruned = exact(
        text,
        {
            "w1": weight(4, 3, 1, 1, dead=(1,)), "w2": weight(5, 3, 1, 1, dead=(0, 4), seed=1),
            "w3": weight(4, 12, 1, 1, unread=(11 - 8 + 2,), seed=2), "sizes": ints(8, 4),
        },
    )  # fmt: skip
    # r = q (c[8:12]) + p (c[0:8]); column 5 of w3 reads p[1] = a[1], dead already
    assert pruned.weight("a")[0] == 3
    assert pruned.weight("b")[0] == 3
    assert pruned.weight("y") == (4, 9, 1, 1)


@pytest.mark.parametrize(("mode", "stay"), [("constant", 7), ("reflect", 6)])
def test_pads_worked_out_at_run_time_leave_the_channels_alone(exact: Exact, mode: str, stay: int) -> None:
    text = f"""g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {{
        a = Conv(x, w1, b1)
        b = Conv(x, w2)
        width = Shape<start=3, end=4>(a)
        right = Mod(width, three)
        pairs = Concat<axis=0>(zero, right, zeros)
        rows = Reshape(pairs, of_two)
        turned = Slice(rows, last, beyond, first_axis, last)
        ends = Transpose<perm=[1,0]>(turned)
        flat = Reshape(ends, last)
        pads = Cast<to=7>(flat)
        p = Pad<mode="{mode}">(a, pads)
        q = Pad(b, pads)
        j = Concat<axis=1>(p, q)
        y = Conv(j, w3)
    }}"""
    pruned = exact(
        text,
        {
            "w1": weight(8, 3, 1, 1, dead=(2, 5)), "b1": bias(8, _2=0), "w2": weight(6, 3, 1, 1, dead=(4,), seed=1),
            "three": ints(3), "zero": ints(0), "zeros": ints(*[0] * 6), "of_two": ints(-1, 2), "last": ints(-1),
            "beyond": ints(-(1 << 62)), "first_axis": ints(0), "w3": weight(4, 14, 1, 1, seed=2),
        },
    )  # fmt: skip
    # 5 of a is constant, but not 0: no constant any more beside a border of zeros
    assert pruned.weight("a")[0] == stay
    assert pruned.weight("b")[0] == 5
    assert pruned.weight("y")[1] == stay + 5


@pytest.mark.parametrize(
    ("before", "count", "reason"),
    [
        ("one", 9, "padding the channels, and computed padding of others"),
        ("even", 8, "computed padding of the channels"),
    ],
)
def test_padding_the_channels_beside_computed_pads_needs_them(
    exact: Exact, before: str, count: int, reason: str
) -> None:
    text = f"""g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {{
        a = Conv(x, w1)
        width = Shape<start=3, end=4>(a)
        even = Mod(width, two)
        right = Mod(width, three)
        pads = Concat<axis=0>(zero, {before}, zero, zero, zero, zero, zero, right)
        p = Pad(a, pads)
        y = Conv(p, w2)
    }}"""
    arrays = {name: ints(value) for value, name in enumerate(("zero", "one", "two", "three"))}
    pruned = exact(text, {**arrays, "w1": weight(8, 3, 1, 1, dead=(2,)), "w2": weight(4, count, 1, 1)})
    assert pruned.weight("a")[0] == 8
    assert [kept.reason for kept in pruned.report.kept] == [f"read by Pad 'p' ({reason})"]


def test_slices_gathers_and_pads_along_the_channels(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y, float[N,2,6,6] z) {
        a = Conv(x, w1)
        s = Slice(a, starts, ends, axes, steps)
        p = Pad(s, pads)
        g = Gather<axis=1>(p, picks)
        y = Conv(g, w2)
        t = Slice(a, low, high, axes)
        z = Conv(t, w3)
    }"""
    pruned = exact(
        text,
        {
            "w1": weight(12, 3, 1, 1, dead=(1, 3, 4)),
            "starts": ints(9), "ends": ints(0), "axes": ints(1), "steps": ints(-2),
            "pads": ints(0, 2, 0, 0, 0, 1, 0, 0), "picks": ints(7, 1, 3, 2, 4, 5), "w2": weight(4, 6, 1, 1, seed=1),
            "low": ints(2), "high": ints(8), "w3": weight(2, 6, 1, 1, unread=(5,), seed=2),
        },
    )  # fmt: skip
    # y reads a[9,7,5,3,1] by way of the slice, 1 and 3 dead; z reads a[2..6], 3 and 4 dead: left 9, 7, 5, 2, 6
    assert pruned.weight("a")[0] == 5
    assert pruned.weight("y")[1] == 3
    assert pruned.weight("z")[1] == 4  # column 7 of a stays for y
