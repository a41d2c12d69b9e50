"""Which channels are removed: groups, multiples, blocks, whole branches."""

import numpy as np
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import Exact, bias, build, ints, weight


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


def test_grouped_layer_behind_a_pinned_input(exact: Exact) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,2,6,6] y) {
        a = Conv<group=4>(x, w1)
        y = Conv(a, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 1, 1, 1, dead=(0, 2, 3)), "w2": weight(2, 8, 1, 1, seed=1)})
    # x keeps its four channels, so every group keeps as many outputs as the fullest
    assert pruned.weight("a") == (8, 1, 1, 1)


def test_never_more_parameters_than_before(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,3,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w)
        g = GlobalAveragePool(a)
        y = Mul(a, g)
    }"""
    pruned = exact(text, {"w": np.zeros((3, 3, 3, 3), np.float32)})
    assert pruned.report.parameters_after == pruned.report.parameters_before == 81


def test_groups_of_a_large_map_are_told_apart_without_its_size(exact: Exact) -> None:
    text = """g (float[1,3,256,256] x) => (float[1,4,256,256] y) {
        c = Conv(x, a)
        f = Reshape(c, groups)
        n = Relu(f)
        r = Reshape(n, maps)
        y = Conv(r, b)
    }"""
    dead = tuple(range(8))  # two groups of four
    weights = {"a": weight(32, 3, 1, 1, dead=dead), "b": weight(4, 32, 1, 1)}
    shapes = {"groups": ints(0, 8, -1), "maps": ints(1, 32, 256, 256)}
    assert exact(text, weights | shapes).weight("c") == (24, 3, 1, 1)


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("unread", [False, True])
def test_a_branch_of_which_nothing_stays_leaves_a_concat(exact: Exact, align: int, unread: bool) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        s = Conv(x, a)
        r = Relu(s)
        k = Conv<pads=[1,1,1,1]>(r, b)
        l = Relu(k)
        m = Conv<pads=[1,1,1,1]>(l, c)
        q = Concat<axis=1>(r, m)
        y = Conv(q, d)
    }"""
    last, branch = weight(4, 32, 1, 1), weight(16, 8, 3, 3, seed=2)
    if unread:
        last[:, 16:] = 0
    else:
        branch[:] = 0
    weights = {"a": weight(16, 3, 1, 1), "b": weight(8, 16, 3, 3), "c": branch, "d": last}
    pruned = exact(text, weights, align=align)
    assert pruned.operators() == ["Conv", "Relu", "Identity", "Conv"]
    assert pruned.weight("y") == (4, 16, 1, 1)


def test_of_branches_of_which_nothing_stays_one_stays_for_the_shape(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        k = Conv(x, a)
        l = Conv(x, b)
        q = Concat<axis=1>(k, l)
        y = Conv(q, d, e)
    }"""
    weights = {
        "a": weight(8, 3, 1, 1) * 0,
        "b": weight(8, 3, 1, 1) * 0,
        "d": weight(4, 16, 1, 1),
        "e": bias(4),
    }
    assert exact(text, weights).report.parameters_after == 3 + 4 + 4


@pytest.mark.parametrize("dense, expected", [("", (9, 9)), ("w2", (9, 12)), ("w1", (12, 12)), ("w0", (12, 9))])
def test_layers_for_sparse_kernels_keep_no_channels_for_alignment(dense: str, expected: tuple[int, int]) -> None:
    """Nine of 15 channels are of use; counts stay aligned where one layer at them is not mostly zero."""
    text = """g (float[1,3,12,12] x) => (float[1,4,12,12] y) {
        a = Conv<pads=[1,1,1,1]>(x, w0)
        b = Conv<pads=[1,1,1,1]>(a, w1)
        y = Conv<pads=[1,1,1,1]>(b, w2)
    }"""
    dead = tuple(range(9, 15))
    arrays = {"w0": weight(15, 3, 3, 3, dead=dead), "w1": weight(15, 15, 3, 3, dead=dead), "w2": weight(4, 15, 3, 3)}
    for array in (array for name, array in arrays.items() if name != dense):
        array[..., [0, 2], :] = array[..., [0, 2]] = 0  # one of nine weights of each kernel stays
    model = build(text, arrays, 17)
    layers = prune(model, target="any", sparse_kernels=True).report.layers
    assert (layers[0].after[0], layers[1].after[0]) == expected
    assert prune(model, target="any", verify=False).report.layers[0].after[0] == 12
