"""Channels through flatten, reshape, transpose and blocks of space: counted and compared."""

import numpy as np
import pytest

from tests.onnx_pruner.conftest import Exact, bias, ints, weight


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
