"""Channels through reductions and normalisations: they pass along other axes, and stay along their own."""

import pytest

from tests.onnx_pruner.conftest import Exact, weight


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("z = Softmax<axis = 1>(h)", 8),
        ("a = Constant<value = int64[1] {3}>()\n z = ReduceSum(h, a)", 6),
        ("z = ReduceL2<axes = [1]>(h)", 8),
        ("i = Constant<value = int64 {2}>()\n z = CumSum(h, i)", 6),
        ("z = LRN<size = 3>(h)", 8),
        ("z = LpNormalization<axis = 2>(h)", 8),
    ],
)
def test_zero_channels_pass_what_does_not_mix_them(exact: Exact, body: str, left: int) -> None:
    text = f"""g (float[N,3,4,4] x) => (float[A,B,C,D] y) {{
        h = Conv(x, w)
        {body}
        y = Relu(z) }}"""
    weights = {"w": weight(8, 3, 1, 1, dead=(2, 5))}
    if left == 6:  # an output keeps its channels: another convolution reads them
        text = text.replace("y = Relu(z)", "y = Conv(z, v)")
        weights["v"] = weight(4, 8, 1, 1, seed=1)
    assert exact(text, weights).weight("h")[0] == left
