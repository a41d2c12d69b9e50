"""Layers with a state: the columns of their weights follow the channels that they read."""

from typing import Any

import numpy as np
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


NEWEST = {"LSTM": 3, "GRU": 2, "RNN": 0}


def units(op: str, sides: int = 1, silent: tuple[int, ...] = (), alone: tuple[int, ...] = ()) -> dict[str, Any]:
    """Weights for 5 hidden units and 3 inputs: `silent` ones get no new value, no other unit reads those `alone`."""
    shape = (sides, GATES[op], 5)
    w, again, b = (weight(*shape, size, seed=k) for k, size in enumerate((3, 5, 2)))
    for array in (w, again, b):
        array[:, NEWEST[op], list(silent)] = 0
    others = [unit for unit in range(5) if unit not in alone]
    again[:, :, others] *= np.isin(np.arange(5), others)
    flat = {"w": w.reshape(sides, -1, 3), "again": again.reshape(sides, -1, 5)}
    return {**flat, "b": np.moveaxis(b, 3, 1).reshape(sides, -1)}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("sides", [1, 2])
def test_hidden_units_that_stay_zero_go(exact: Exact, op: str, sides: int) -> None:
    direction = "bidirectional" if sides == 2 else "reverse"
    text = f"""g (float[N,B,3] x) => (float[P,Q,R,S] y) {{
        h = {op}<hidden_size=5, direction="{direction}">(x, w, again, b) y = MatMul(h, out)
    }}"""
    pruned = exact(text, {**units(op, sides, silent=(1, 4)), "out": weight(5, 2, seed=5)})
    assert pruned.weight("h") == pruned.weight("h", 2) == (sides, GATES[op] * 3, 3)
    assert pruned.weight("y") == (3, 2)
    assert pruned.report.parameters_after == sides * GATES[op] * 3 * (3 + 3 + 2) + 6


@pytest.mark.parametrize("op", GATES)
def test_hidden_units_that_neither_a_reader_nor_another_unit_reads_go(exact: Exact, op: str) -> None:
    """Nothing reads 2 and 3 outside: others read 3."""
    text = f"""g (float[N,B,3] x) => (float[P,Q,R,S] y, float[K,L,M] z) {{
        h, last = {op}<hidden_size=5>(x, w, again, b) y = MatMul(h, out) z = MatMul(last, out)
    }}"""
    pruned = exact(text, {**units(op, alone=(2,)), "out": weight(5, 2, dead=(2, 3), seed=5)})
    assert pruned.weight("h", 2) == (1, GATES[op] * 4, 4)
    assert pruned.weight("y") == (4, 2)


def test_first_states_and_peepholes_lose_units(exact: Exact) -> None:
    """A unit whose first cell or value is other than zero does not stay zero: 1 does, 3 and 4 do not."""
    text = """g (float[N,2,3] x) => (float[P,Q,R,S] y, float[K,L,M] z) {
        h, last, c = LSTM<hidden_size=5>(x, w, again, b, , first, cell, p) y = MatMul(h, out) z = MatMul(c, out)
    }"""
    first, cell = (weight(1, 2, 5, seed=k) for k in (7, 8))
    first[:, :, [1, 3]] = cell[:, :, [1, 4]] = 0
    states = {"first": first, "cell": cell, "p": weight(1, 15, seed=9), "out": weight(5, 2, seed=5)}
    pruned = exact(text, {**units("LSTM", silent=(1, 3, 4)), **states})
    assert [pruned.weight("h", k) for k in (1, 5, 6, 7)] == [(1, 16, 3), (1, 2, 4), (1, 2, 4), (1, 12)]


def test_a_state_that_another_layer_begins_with_is_cut_with_it(exact: Exact) -> None:
    text = """g (float[N,B,3] x) => (float[P,Q,R,S] y) {
        h, last = GRU<hidden_size=5>(x, w, again, b) i = GRU<hidden_size=5>(x, w2, again2, b2, , last)
        y = MatMul(i, out)
    }"""
    second = {f"{name}2": array for name, array in units("GRU", silent=(1, 2)).items()}
    pruned = exact(text, {**units("GRU", silent=(1, 3)), **second, "out": weight(5, 2, seed=5)})
    assert pruned.weight("h", 2) == pruned.weight("i", 2) == (1, 12, 4)


@pytest.mark.parametrize(("name", "cut"), [("Relu", True), ("Tanh", True), ("Sigmoid", False)])
def test_an_activation_may_make_something_of_zero(exact: Exact, name: str, cut: bool) -> None:
    text = f"""g (float[N,B,3] x) => (float[P,Q,R,S] y) {{
        h = RNN<hidden_size=5, activations=["{name}"]>(x, w, again, b) y = MatMul(h, out)
    }}"""
    weights = {**units("RNN", silent=(0,)), "out": weight(5, 2, seed=5)}
    assert exact(text, weights).weight("h")[1] == (4 if cut else 5)
    weights["b"][0, 0] = -1  # Relu makes zero of that, too
    assert exact(text, weights).weight("h")[1] == (4 if name == "Relu" else 5)


def test_between_the_biases_of_a_gru_a_gate_may_lie(exact: Exact) -> None:
    for before, left in ((0, 4), (1, 5)):
        text = f"""g (float[N,B,3] x) => (float[P,Q,R,S] y) {{
            h = GRU<hidden_size=5, linear_before_reset={before}>(x, w, again, b) y = MatMul(h, out)
        }}"""
        weights = {**units("GRU", silent=(0,)), "out": weight(5, 2, seed=5)}
        weights["b"][0, [10, 25]] = 0.5, -0.5
        assert exact(text, weights).weight("h", 2)[2] == left


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
