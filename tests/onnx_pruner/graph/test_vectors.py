"""Small vectors of sizes, worked out at run time."""

import pytest

from tests.onnx_pruner.conftest import Exact, bias, weight


@pytest.mark.parametrize(("batch", "left"), [("1", 6), ("N", 8)])
def test_the_number_of_elements_is_that_of_the_whole(exact: Exact, batch: str, left: int) -> None:
    text = f"""g (float[{batch},3,8,8] x) => (float[{batch},4,8,8] y) {{
        c = Conv(x, w1, b1)
        r = Relu(c)
        s = Size(r)
        f = Cast<to=1>(s)
        d = Conv(r, w2)
        y = Div(d, f)
    }}"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(1, 2)), "b1": -bias(8), "w2": weight(4, 8, 1, 1)}
    assert exact(text, weights).weight("c") == (left, 3, 1, 1)
