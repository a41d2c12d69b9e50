"""Ways in which channels meet: joins, splits, shuffles, groups, reshapes, collapsed branches; counted and compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import bias, build, ints, weight

Exact = Callable[..., Any]


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


ADDS_NOTHING = """
    a = Conv(x, w1)
    t = Transpose<perm=[0,2,3,1]>(a)
    l = LayerNormalization(t, scale)
    m = MatMul(l, nothing)
    r = Add(t, m)"""
ITS_WEIGHTS = {
    "w1": weight(8, 3, 1, 1, dead=(2, 5)), "scale": weight(8),
    "nothing": weight(8, 8, dead=tuple(range(8))), "w2": weight(8, 4, seed=1),
}  # fmt: skip


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


def test_a_dead_node_goes_although_it_leaves_out_an_output() -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,4] y) {{{ADDS_NOTHING}
        c = Clip(r, low, high)
        p = ReduceMean<axes=[1,2], keepdims=0>(c)
        y = MatMul(p, w2)
    }}"""
    model = build(text, {**ITS_WEIGHTS, "low": np.float32(-1), "high": np.float32(1)}, 17)
    model.graph.node[2].output.append("")  # as optional outputs are left out, and optional inputs
    model.graph.node[5].input[1] = ""
    pruned = prune(model, align=1).model
    assert [node.op_type for node in pruned.graph.node] == [
        "Conv", "Transpose", "Identity", "Clip", "ReduceMean", "MatMul"
    ]  # fmt: skip


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


@pytest.mark.parametrize("nhwc", [False, True])
def test_flatten_with_spatial_extent(exact: Exact, nhwc: bool) -> None:
    move = "t = Transpose<perm=[0,2,3,1]>(r)" if nhwc else "t = Identity(r)"
    text = f"""g (float[N,3,4,4] x) => (float[N,5] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        {move}
        f = Flatten(t)
        y = Gemm<transB=1>(f, w2, b2)
    }}"""
    w2 = weight(5, 128, seed=1)
    w2.reshape((5, 16, 8) if nhwc else (5, 8, 16)).swapaxes(1, 1 if nhwc else 2)[:, :, 6] = 0
    pruned = exact(
        text, {"w1": weight(8, 3, 3, 3, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-0.4), "w2": w2, "b2": bias(5)}
    )
    assert pruned.weight("a")[0] == 5
    assert pruned.weight("y") == (5, 80)


@pytest.mark.parametrize("target", [(0, 128), (-1, 128), (0, -1)])
def test_reshape_from_and_to_channels(exact: Exact, target: tuple[int, ...]) -> None:
    text = """g (float[N,3,4,4] x) => (float[N,2,4,4] y) {
        a = Conv(x, w1)
        f = Reshape(a, flat)
        h = Gemm(f, w2, b2)
        r = Relu(h)
        u = Reshape(r, unflat)
        y = Conv<pads=[1,1,1,1]>(u, w3)
    }"""
    w2 = weight(128, 128, seed=1)
    w2[:, 3 * 16 : 5 * 16] = 0
    b2 = np.concatenate([bias(48), -np.ones(16, np.float32), bias(64)])
    pruned = exact(
        text,
        {"w1": weight(8, 3, 1, 1, dead=(1,)), "flat": ints(*target), "w2": w2, "b2": b2, "unflat": ints(-1, 8, 4, 4),
         "w3": weight(2, 8, 3, 3, unread=(7,), seed=2)},
    )  # fmt: skip
    assert pruned.weight("a")[0] == 7
    assert pruned.weight("h") == (
        7 * 16,
        6 * 16,
    )  # block 3 is constant 0, block 4 differs along its positions, 7 unread
    assert pruned.weight("y")[1] == 6


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


def test_whole_groups_go(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,2,6,6] y) {
        a = Conv(x, w1)
        b = Conv<group=4>(a, w2, b2)
        r = Relu(b)
        y = Conv(r, w3)
    }"""
    w3 = weight(2, 8, 1, 1, unread=(2, 3), seed=2)
    pruned = exact(text, {"w1": weight(8, 3, 1, 1), "w2": weight(8, 2, 1, 1, seed=1), "b2": bias(8), "w3": w3})
    assert pruned.weight("a")[0] == 6
    assert pruned.weight("b") == (6, 2, 1, 1)
    node = next(n for n in pruned.model.graph.node if "b" in n.output)
    assert next(a.i for a in node.attribute if a.name == "group") == 3


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


@pytest.mark.parametrize(("mode", "count"), [("DCR", 6), ("CRD", 6)])
def test_depth_to_space_and_back(exact: Exact, mode: str, count: int) -> None:
    text = f"""g (float[N,3,4,4] x) => (float[N,2,4,4] y) {{
        a = Conv(x, w1)
        u = DepthToSpace<blocksize=2, mode="{mode}">(a)
        r = Relu(u)
        d = SpaceToDepth<blocksize=2>(r)
        y = Conv(d, w2)
    }}"""
    w1 = weight(12, 3, 1, 1)
    w1.reshape((4, 3, 3) if mode == "DCR" else (3, 4, 3)).swapaxes(0, 1 if mode == "DCR" else 0)[1] = 0
    pruned = exact(text, {"w1": w1, "w2": weight(2, 12, 1, 1, seed=1)})
    assert pruned.weight("a")[0] == 8
    assert pruned.weight("y")[1] == 8


def test_pixel_shuffle_by_reshapes(exact: Exact) -> None:
    text = """g (float[N,3,4,4] x) => (float[N,2,8,8] y) {
        a = Conv(x, w1)
        s = Reshape(a, split)
        t = Transpose<perm=[0,1,4,2,5,3]>(s)
        u = Reshape(t, join)
        y = Conv(u, w2)
    }"""
    w1 = weight(12, 3, 1, 1)
    w1[4:8] = 0
    pruned = exact(
        text,
        {
            "w1": w1,
            "split": ints(-1, 3, 2, 2, 4, 4),
            "join": ints(-1, 3, 8, 8),
            "w2": weight(2, 3, 1, 1, seed=1),
        },
    )
    assert pruned.weight("a")[0] == 8


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


@pytest.mark.parametrize("length", [7, 8])  # as many positions as channels: a bias along the wrong axis would fit
def test_constants_move_into_the_bias_of_a_matmul_with_the_weight_on_the_left(exact: Exact, length: int) -> None:
    text = f"""g (float[N,3,{length}] x) => (float[N,8,{length}] y) {{
        a = MatMul(w1, x)
        b = Add(a, b1)
        y = MatMul(w2, b)
    }}"""
    weights = {"w1": weight(8, 3, dead=(2, 5)), "b1": bias(8)[:, None], "w2": weight(8, 8, seed=1)}
    pruned = exact(text, weights)
    assert pruned.weight("a", 0) == (6, 3)
    assert pruned.operators() == ["MatMul", "Add", "MatMul", "Add"]


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


def test_layer_collapse_keeps_one_channel(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        y = Conv<pads=[1,1,1,1]>(r, w2, b2)
    }"""
    pruned = exact(
        text,
        {"w1": np.zeros((8, 3, 3, 3), np.float32), "b1": bias(8), "w2": weight(4, 8, 3, 3), "b2": bias(4)},
    )
    assert pruned.weight("a")[0] == 1
    pruned = exact(
        text,
        {"w1": weight(8, 3, 3, 3), "b1": bias(8), "w2": np.zeros((4, 8, 3, 3), np.float32), "b2": bias(4)},
    )
    assert pruned.weight("y")[:2] == (4, 1)


def test_intermediate_output_pins(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y, float[N,8,6,6] r) {
        a = Conv(x, w1)
        r = Relu(a)
        y = Conv(r, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2,)), "w2": weight(4, 8, 1, 1, seed=1)})
    assert pruned.weight("a")[0] == 8
    assert pruned.report.kept[0].reason.startswith("tied to 'r', a graph output")


@pytest.mark.parametrize("align", [1, 2, 4, 8])
def test_alignment_keeps_multiples(exact: Exact, align: int) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        a = Conv(x, w1, b1)
        r = Relu(a)
        y = Conv(r, w2)
    }"""
    pruned = exact(
        text,
        {"w1": weight(12, 3, 1, 1, dead=(1, 2, 3, 4, 5)), "b1": bias(12), "w2": weight(4, 12, 1, 1, seed=1)},
        align=align,
    )
    assert pruned.weight("a")[0] == {1: 7, 2: 8, 4: 8, 8: 8}[align]
    assert pruned.report.parameters_after_align_1 == 7 * 3 + 7 + 7 * 4 + 4


@pytest.mark.parametrize(
    ("kernel", "size", "alive", "expected"),
    [(3, 12, 11, 16), (3, 12, 7, 8), (3, 6, 7, 16), (3, 6, 4, 4), (1, 12, 3, 16), (1, 12, 17, 20)],
)
def test_counts_that_would_leave_the_blocked_layout_fill_a_block(
    exact: Exact, kernel: int, size: int, alive: int, expected: int
) -> None:
    text = f"""g (float[N,3,{size},{size}] x) => (float[N,4,M,K] y) {{
        a = Conv(x, w1, b1)
        r = Relu(a)
        y = Conv<kernel_shape=[{kernel},{kernel}]>(r, w2)
    }}"""
    weights = {
        "w1": weight(32, 3, 1, 1, dead=tuple(range(alive, 32))),
        "b1": bias(32),
        "w2": weight(4, 32, kernel, kernel, seed=1),
    }
    assert exact(text, weights, align=4).weight("a")[0] == expected
    assert exact(text, weights).weight("a")[0] == alive


@pytest.mark.parametrize(("kernel", "channels", "expected"), [(1, 32, 32), (1, 24, 24), (1, 28, 20), (3, 32, 20)])
def test_a_pool_behind_a_1x1_convolution_keeps_whole_blocks(
    exact: Exact, kernel: int, channels: int, expected: int
) -> None:
    text = f"""g (float[N,3,12,12] x) => (float[N,4,M,K] y) {{
        a = Conv<kernel_shape=[{kernel},{kernel}]>(x, w1, b1)
        r = Relu(a)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        y = Conv(p, w2)
    }}"""
    weights = {
        "w1": weight(channels, 3, kernel, kernel, dead=tuple(range(18, channels))),
        "b1": bias(channels),
        "w2": weight(4, channels, 3, 3, seed=1),
    }
    assert exact(text, weights, align=4).weight("a")[0] == expected
    assert exact(text, weights).weight("a")[0] == 18


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


def test_weights_listed_as_inputs_leave_the_list(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x, float[8,3,1,1] w1, float[4,8,1,1] w2, float[4] b2) => (float[N,4,6,6] y) {
        a = Conv(x, w1)
        r = Relu(a)
        y = Conv(r, w2, b2)
    }"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1), "b2": bias(4)}
    pruned = exact(text, weights, opset=8, ir_version=3)
    assert pruned.weight("a")[0] == 6
    assert [i.name for i in pruned.model.graph.input] == ["x", "b2"]
    assert "no longer inputs: w1, w2" in pruned.report.notes[0]


def test_float16(exact: Exact) -> None:
    text = """g (float16[N,3,6,6] x) => (float16[N,4,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        n = BatchNormalization(a, gamma, beta, mean, var)
        r = Relu(n)
        y = Conv<pads=[1,1,1,1]>(r, w2, b2)
    }"""
    weights = {
        "w1": weight(8, 3, 3, 3, dead=(2, 5)), "b1": bias(8), "w2": weight(4, 8, 3, 3, seed=1), "b2": bias(4),
        "gamma": bias(8), "beta": bias(8), "mean": bias(8), "var": bias(8),
    }  # fmt: skip
    pruned = exact(text, {k: v.astype(np.float16) for k, v in weights.items()}, tolerance=5e-3)
    assert pruned.weight("n")[0] == 7
    assert {t.data_type for t in pruned.model.graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_float64(exact: Exact) -> None:
    text = """g (double[N,6] x) => (double[N,4] y) {
        a = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w1, b1)
        r = Relu(a)
        y = Gemm<transB=1, alpha=0.5, beta=2.0>(r, w2, b2)
    }"""
    weights = {"w1": weight(8, 6, dead=(2, 5)), "b1": bias(8), "w2": weight(4, 8, seed=1), "b2": bias(4)}
    pruned = exact(text, {k: v.astype(np.float64) for k, v in weights.items()}, tolerance=1e-12)
    assert pruned.weight("a") == (6, 6)


def test_grouped_layer_behind_a_pinned_input(exact: Exact) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,2,6,6] y) {
        a = Conv<group=4>(x, w1)
        y = Conv(a, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 1, 1, 1, dead=(0, 2, 3)), "w2": weight(2, 8, 1, 1, seed=1)})
    # x keeps its four channels, so every group keeps as many outputs as the fullest
    assert pruned.weight("a") == (8, 1, 1, 1)


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


def test_never_more_parameters_than_before(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,3,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w)
        g = GlobalAveragePool(a)
        y = Mul(a, g)
    }"""
    pruned = exact(text, {"w": np.zeros((3, 3, 3, 3), np.float32)})
    assert pruned.report.parameters_after == pruned.report.parameters_before == 81


@pytest.mark.parametrize("per_axis", [False, True])
def test_quantised_weights_stay_quantised(exact: Exact, per_axis: bool) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        i = Identity(s1)
        f = DequantizeLinear<axis=0>(q1, i, z1)
        a = Conv(x, f, b1)
        r = Relu(a)
        g = DequantizeLinear(q2, s2)
        y = Conv(r, g)
    }"""
    rng = np.random.default_rng(0)
    q1, q2 = (
        rng.integers(-9, 10, (8, 3, 1, 1)).astype(np.int8),
        rng.integers(-9, 10, (4, 8, 1, 1)).astype(np.int8),
    )
    q1[[1, 4]] = 0
    q2[:, 6] = 0
    count = (8,) if per_axis else ()
    weights = {
        "q1": q1, "s1": np.full(count, 0.1, np.float32), "z1": np.zeros(count, np.int8), "b1": bias(8, _1=-1, _4=-2),
        "q2": q2, "s2": np.float32(0.2),
    }  # fmt: skip
    pruned = exact(text, weights)
    sizes = {tuple(t.dims) for t in pruned.model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    assert {(5, 3, 1, 1), (4, 5, 1, 1)} <= sizes
    assert pruned.operators().count("DequantizeLinear") == 2
