"""Why a channel stayed although it is zero."""

import pytest

from tests.onnx_pruner.conftest import Exact, weight


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Conv<pads = [1,1,1,1]>(x, w)", "it is a graph output"),
        ("a = Conv(x, w)\n y = Softmax<axis = 1>(a)", "read by Softmax 'y' (Softmax along the channels)"),
    ],
)
def test_the_reader_that_needs_a_zero_channel_is_named(exact: Exact, body: str, reason: str) -> None:
    text = f"g (float[N,3,4,4] x) => (float[N,8,H,W] y) {{ {body} }}"
    pruned = exact(text, {"w": weight(8, 3, 3, 3, dead=(2, 5))})
    assert [(kept.channels, kept.reason) for kept in pruned.report.kept] == [((2, 5), reason)]
