"""Layers with a state: the columns of their weights follow the channels that they read."""

from typing import Any

import pytest

from tests.onnx_pruner.conftest import Exact, bias, ints, weight

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("attributes", ["", 'direction="bidirectional", '])
@pytest.mark.parametrize("biased", [False, True])
def test_a_reader_of_text_lines_loses_columns(exact: Exact, op: str, attributes: str, biased: bool) -> None:
    """Convolution, one row of positions as steps, and a layer with a state: 2 is constant, 5 zero, 6 unread."""
    sides = 2 if "bi" in attributes else 1
    text = f"""g (float[B,3,4,7] x) => (float[P,Q,R,S] y) {{
        c = Conv(x, w1, b1) r = Relu(c) m = MaxPool<kernel_shape=[4,1]>(r) s = Squeeze(m, two)
        t = Transpose<perm=[2,0,1]>(s)
        h = {op}<{attributes}hidden_size=3>(t, w, again{", b" if biased else ""}) y = Neg(h)
    }}"""
    columns = weight(sides, GATES[op] * 3, 8, seed=1)
    columns[:, :, 6] = 0
    weights: dict[str, Any] = {
        "w1": weight(8, 3, 1, 1, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-1), "two": ints(2), "w": columns,
        "again": weight(sides, GATES[op] * 3, 3, seed=2),
    }  # fmt: skip
    if biased:
        weights["b"] = weight(sides, GATES[op] * 6, seed=3)
    pruned = exact(text, weights)
    assert pruned.weight("c")[0] == 5
    assert pruned.weight("h") == (sides, GATES[op] * 3, 5)


def test_of_a_sequence_of_samples_nothing_goes(exact: Exact) -> None:
    text = """g (float[B,3,7] x) => (float[P,Q,R,S] y) {
        c = Conv(x, w1) t = Transpose<perm=[1,0,2]>(c) h = RNN<hidden_size=3>(t, w, again) y = Neg(h)
    }"""
    weights = {"w1": weight(8, 3, 1, dead=(2,)), "w": weight(1, 3, 7), "again": weight(1, 3, 3)}
    pruned = exact(text, weights)
    assert pruned.weight("c")[0] == 8
    assert "steps or samples for channels" in pruned.report.kept[0].reason


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_a_causal_convolution_carries_channels(exact: Exact, activation: str) -> None:
    """2 is constant, but not where it begins, 5 zero, 6 unread, and 1 without taps."""
    text = f"""g (float[B,3,7] x) => (float[B,4,7] y) {{
        c = Conv(x, w1, b1) r = Relu(c) h, s = CausalConvWithState<activation="{activation}">(r, w, b) y = Conv(h, w2)
    }}"""
    taps = weight(8, 1, 3, seed=1)
    taps[1] = 0
    weights = {
        "w1": weight(8, 3, 1, dead=(2, 5)), "b1": bias(8, _2=0.7, _5=-1), "w": taps, "b": bias(8),
        "w2": weight(4, 8, 1, unread=(6,)),
    }  # fmt: skip
    assert exact(text, weights, opset=27).weight("h") == (5, 1, 3)
