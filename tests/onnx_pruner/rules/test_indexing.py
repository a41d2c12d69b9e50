"""Constant indices: those along the channels pick some, others let them pass."""

import numpy as np
import pytest

from tests.onnx_pruner.conftest import Array, Exact, bias, ints, weight

#: Name, body between h (N, 8, 6, 6; 2 constant, 5 zero) and z, its indices, filters of h that stay.
PICKS: list[tuple[str, str, Array, int]] = [
    ("Gather of one", "z = Gather<axis=1>(h, i)", np.int64(3), 1),
    ("Gather of a table", "z = Gather<axis=1>(h, i)", np.array([[0, 2], [0, 7]]), 3),
    ("GatherND of channels", "t = Transpose<perm=[1,0,2,3]>(h) z = GatherND(t, i)", np.array([[7], [3], [3]]), 2),
    ("GatherND of one", "t = Transpose<perm=[1,0,2,3]>(h) z = GatherND(t, i)", np.array([3]), 1),
    ("GatherND of samples", "z = GatherND(h, i)", np.array([[0], [0]]), 8),
    ("GatherND of positions", "z = GatherND(h, i)", np.array([[0, 1, 2], [0, 4, 1]]), 2),
    ("GatherElements of channels", "z = GatherElements<axis=1>(h, i)", np.full((1, 1, 6, 6), 3), 1),
    ("Compress", "z = Compress<axis=1>(h, i)", np.arange(8) < 3, 3),
]


@pytest.mark.parametrize(("name", "body", "indices", "left"), PICKS, ids=[name for name, *_ in PICKS])
def test_what_indices_pick_alone_stays(exact: Exact, name: str, body: str, indices: Array, left: int) -> None:
    text = f"g (float[1,3,6,6] x) => (float[P,Q,R,S] y) {{ c = Conv(x, w1, b1) h = Relu(c) {body} y = Neg(z) }}"
    rank = {"Gather of one": 3, "Gather of a table": 5, "GatherND of one": 3, "GatherND of positions": 2}.get(name, 4)
    text = text.replace("P,Q,R,S", ",".join("PQRST"[:rank]))
    weights = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-1), "i": indices}
    assert exact(text, weights).weight("c")[0] == left


#: Bodies between two convolutions, and the filters that stay beside the constant 2, the zero 5 and the unread 6.
PASSES = [
    ("GatherElements", "z = GatherElements<axis=3>(h, of_all)", 5),
    ("Compress", "z = Compress<axis=3>(h, six)", 5),
    (
        "ReverseSequence",
        "t = Transpose<perm=[3,0,1,2]>(h) u = ReverseSequence(t, one) z = Transpose<perm=[1,2,3,0]>(u)",
        5,
    ),
    ("Trilu", "z = Trilu(h)", 6),
    ("CenterCropPad", "z = CenterCropPad(h, shape)", 6),
    ("CenterCropPad of axes", "z = CenterCropPad<axes=[2,3]>(h, ends)", 6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "left"), PASSES, ids=[name for name, *_ in PASSES])
def test_channels_pass_what_happens_along_other_axes(exact: Exact, name: str, body: str, left: int) -> None:
    text = f"""g (float[1,3,6,6] x) => (float[1,4,P,Q] y) {{
        c = Conv(x, w1, b1) h = Relu(c) {body} y = Conv(z, w2)
    }}"""
    weights: dict[str, Array] = {
        "w1": weight(8, 3, 1, 1, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-1), "w2": weight(4, 8, 1, 1, unread=(6,)),
        "of_all": np.random.default_rng(0).integers(0, 6, (1, 8, 6, 6)), "six": np.arange(6) < 4, "one": ints(4),
        "shape": ints(1, 8, 7, 5), "ends": ints(7, 5),
    }  # fmt: skip
    used = {name: array for name, array in weights.items() if f"{name})" in text or f"{name}," in text}
    assert exact(text, used, opset=18).weight("c")[0] == left
