"""What a rule is given when inputs are left out."""

from collections.abc import Mapping

import numpy as np
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import Array, Exact, build, ints, weight


@pytest.mark.parametrize(
    ("layer", "left", "extra"),
    [
        ("p = MaxPool<kernel_shape=[1,1]>(c)", 8, {}),
        ("p = Slice(c, from, to)", 6, {"from": ints(0, 1), "to": ints(1000, 7)}),
        ("p = Concat<axis=1>(c, nothing)", 8, {"nothing": np.zeros((1, 0, 6, 6), np.float32)}),
    ],
    ids=["output without a name", "slice without axes", "concat with nothing"],
)
def test_what_is_left_out_does_not_confuse(exact: Exact, layer: str, left: int, extra: Mapping[str, Array]) -> None:
    text = f"g (float[1,3,6,6] x) => (float[1,4,6,6] y) {{ c = Conv(x, w1) {layer} y = Conv(p, w2) }}"
    weights = {"w1": weight(8, 3, 1, 1, dead=(3,)), "w2": weight(4, left, 1, 1), **extra}
    model = build(text, weights, 17)
    if "MaxPool" in layer:
        model.graph.node[1].output.append("")
    assert prune(model, align=1).report.channels_removed == (3 if left == 6 else 1)
