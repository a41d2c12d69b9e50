"""Channel shuffles in every spelling lose what their twin written with Slice loses."""

import numpy as np
import pytest

from tests.onnx_pruner.conftest import Array, Exact, bias, ints, weight

TWIN = "a = Slice(r, i0, end, i1, i2) b = Slice(r, i1, end, i1, i2)"
#: From r (N, 8, 6, 6), channels a (0, 2, 4, 6) and b (1, 3, 5, 7).
SHUFFLES = {
    "pairs first, Gather": "p = Reshape(r, s3) t = Transpose<perm=[1,0,2]>(p) q = Reshape(t, s5) "
    "a = Gather<axis=0>(q, zero) b = Gather<axis=0>(q, one)",
    "pairs first, Split": "p = Reshape(r, s3) t = Transpose<perm=[1,0,2]>(p) q = Reshape(t, s5) "
    "a1, b1_ = Split<axis=0, num_outputs=2>(q) a = Squeeze(a1, i0) b = Squeeze(b1_, i0)",
    "pairs first, GatherND": "p = Reshape(r, s3) t = Transpose<perm=[1,0,2]>(p) q = Reshape(t, s5) "
    "a = GatherND(q, i0) b = GatherND(q, i1)",
    "groups, Gather": "p = Reshape(r, s4_2) t = Transpose<perm=[2,0,1,3,4]>(p) "
    "a = Gather<axis=0>(t, zero) b = Gather<axis=0>(t, one)",
    "groups, Slice": "p = Reshape(r, s4_2) t = Transpose<perm=[0,2,1,3,4]>(p) a1 = Slice(t, i0, i1, i1) "
    "b1_ = Slice(t, i1, i2, i1) a = Squeeze(a1, i1) b = Squeeze(b1_, i1)",
    "permuted, halves": "p = Reshape(r, s4_2) t = Transpose<perm=[0,2,1,3,4]>(p) q = Reshape(t, s8) "
    "a, b = Split<axis=1, num_outputs=2>(q)",
    "channels last": "u = Transpose<perm=[0,2,3,1]>(r) p = Reshape(u, s6_6_4_2) t = Transpose<perm=[4,0,3,1,2]>(p) "
    "a = Gather<axis=0>(t, zero) b = Gather<axis=0>(t, one)",
    "computed batch": "sh = Shape(r) n = Gather(sh, i0) s = Concat<axis=0>(n, s4_2_6_6) p = Reshape(r, s) "
    "t = Transpose<perm=[2,0,1,3,4]>(p) a = Gather<axis=0>(t, zero) b = Gather<axis=0>(t, one)",
}
NUMBERS: dict[str, Array] = {
    "zero": np.int64(0), "one": np.int64(1), "i0": ints(0), "i1": ints(1), "i2": ints(2), "end": ints(8),
    "s3": ints(4, 2, 36), "s5": ints(2, -1, 4, 6, 6), "s4_2": ints(0, 4, 2, 6, 6), "s8": ints(0, 8, 6, 6),
    "s6_6_4_2": ints(0, 6, 6, 4, 2), "s4_2_6_6": ints(4, 2, 6, 6),
}  # fmt: skip


def removed(exact: Exact, body: str, batch: str) -> tuple[int, ...]:
    text = f"""g (float[{batch},3,6,6] x) => (float[{batch},4,6,6] y) {{
        h = Conv(x, w1, b1) r = Relu(h) {body}
        c = Conv<pads=[1,1,1,1]>(b, w2) j = Concat<axis=1>(a, c) y = Conv<pads=[1,1,1,1]>(j, w3)
    }}"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(0, 1, 5)), "b1": bias(8, _0=-1, _1=0, _5=0.7),
        "w2": weight(4, 4, 3, 3, dead=(2,)), "w3": weight(4, 8, 3, 3, unread=(1, 5)), **NUMBERS,
    }  # fmt: skip
    used = {name: array for name, array in weights.items() if any(f"{name}{end}" in text for end in ",)")}
    pruned = exact(text, used, opset=18)
    assert not {"Reshape", "Transpose"} & set(pruned.operators())
    return tuple(pruned.weight(name)[k] for name in "hcy" for k in (0, 1))


@pytest.mark.parametrize("name", SHUFFLES)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_shuffle_loses_what_its_twin_does(exact: Exact, name: str, batch: str) -> None:
    if "s3" in SHUFFLES[name]:
        batch = "1"  # what the first shape states
    assert removed(exact, SHUFFLES[name], batch) == removed(exact, TWIN, batch) == (5, 3, 2, 3, 4, 4)


def test_a_chain_that_others_read_half_way_is_left(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[2,N,4,6,6] y, float[N,4,6,6] a) {
        h = Conv(x, w1, b1) r = Relu(h) p = Reshape(r, s4_2) t = Transpose<perm=[2,0,1,3,4]>(p) y = Relu(t)
        a = Gather<axis=0>(t, zero)
    }"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(0, 1)), "b1": bias(8, _0=0, _1=0), "s4_2": ints(0, 4, 2, 6, 6)}
    assert "Transpose" in exact(text, {**weights, "zero": np.int64(0)}).operators()
