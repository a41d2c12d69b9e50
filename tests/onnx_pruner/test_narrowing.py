"""Convolutions that read or make few of a stream's channels."""

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner.prune import finish, open_source, prune_opened
from onnx_shift.onnx_pruner.report import PruneReport
from onnx_shift.onnx_pruner.target import GATHER, Fit, Table
from tests.onnx_pruner.conftest import Floats, bias, build, random_feeds, run, weight

CHEAP = {8: 0.001, 64: 0.008}
DENSE = {3: 2.0, 4: 0.9, 8: 1.0, 16: 2.0, 32: 6.0, 64: 20.0}


def fit(cost: float = 1) -> Fit:
    kernels = {"3x3": {7: DENSE}, "1x1": {7: DENSE}, GATHER: {7: {width: cost * ms for width, ms in CHEAP.items()}}}
    return Fit(4, Table("mine", "a processor", "1.0", 8, {"float32": kernels}))


STREAM = """g (float[N,3,6,6] x) => (float[N,5,6,6] y) {
    s = Conv(x, w0, b0)
    p = Conv<pads=[1,1,1,1]>(s, w1, b1)
    r = Relu(p)
    q = Conv<pads=[1,1,1,1]>(r, w2)
    t = Add(s, q)
    y = Conv(t, w3)
}"""
READ, MADE = (1, 5, 8, 20, 31), (0, 2, 3, 30)


def weights() -> dict[str, Floats]:
    unread = tuple(sorted({*range(32)} - {*READ}))
    return {
        "w0": weight(32, 3, 1, 1), "b0": bias(32), "w1": weight(24, 32, 3, 3, unread=unread), "b1": bias(24),
        "w2": weight(32, 24, 3, 3, dead=tuple(sorted({*range(32)} - {*MADE}))), "w3": weight(5, 32, 1, 1, seed=3),
    }  # fmt: skip


def narrowed(model: onnx.ModelProto, how: Fit) -> tuple[onnx.ModelProto, PruneReport]:
    opened = open_source(model)
    result = finish(opened, prune_opened(opened, how), verify=False)
    onnx.checker.check_model(result.model, full_check=True)
    for batch in (1, 3):
        fed = random_feeds(model, batch)
        for want, got in zip(run(model, fed), run(result.model, fed), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1.0, float(np.abs(want).max(initial=0))))
    return result.model, result.report


def test_a_layer_picks_what_it_reads_and_spreads_what_it_makes() -> None:
    model, report = narrowed(build(STREAM, weights(), 17), fit())
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Conv", "Gather", "Conv", "Relu", "Conv", "Gather", "Add", "Conv"]
    assert {layer.name: layer.after for layer in report.layers} == {
        "s": (32, 3, 1, 1), "p": (24, 8, 3, 3), "q": (8, 24, 3, 3), "y": (5, 32, 1, 1),
    }  # fmt: skip
    assert report.narrowed == ("p", "q") and "by a Gather: 2" in report.summary()
    assert report.parameters_after_align_1 == report.parameters_before
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    picked, spread = (arrays[node.input[1]] for node in model.graph.node if node.op_type == "Gather")
    assert len(picked) == 8 and {*READ} <= {*picked.tolist()}
    assert len(spread) == 32 and len({*spread[list(MADE)].tolist()}) == 4


@pytest.mark.parametrize("how", [fit(1e4), Fit(1), Fit(4)])
def test_where_a_gather_costs_more_than_it_saves_or_was_not_measured_there_is_none(how: Fit) -> None:
    model, report = narrowed(build(STREAM, weights(), 17), how)
    assert "Gather" not in [node.op_type for node in model.graph.node]
    assert not report.narrowed


def test_layers_that_read_the_same_channels_share_a_gather() -> None:
    text = """g (float[N,3,6,6] x) => (float[N,24,6,6] y, float[N,5,6,6] z) {
        s = Conv(x, w0, b0)
        p = Conv(s, w1)
        q = Conv(s, w2)
        y = Add(p, q)
        z = Conv(s, w3)
    }"""
    pair = weight(48, 32, 1, 1, unread=tuple({*range(32)} - {*READ}))
    arrays = {"w0": weight(32, 3, 1, 1), "b0": bias(32), "w1": pair[:24], "w2": pair[24:], "w3": weight(5, 32, 1, 1)}
    model, report = narrowed(build(text, arrays, 17), fit())
    assert report.narrowed == ("p", "q")
    assert [node.op_type for node in model.graph.node].count("Gather") == 1


def mostly_zero() -> Floats:
    values = weights()["w1"]
    values[:, READ] *= np.random.default_rng(0).random((24, 5, 3, 3)) > 0.9
    return values


@pytest.mark.parametrize("change, text", [
    ({"w1": mostly_zero()}, STREAM),  # sparse kernels pass over zeros without a Gather
    ({}, STREAM.replace("r = Relu(p)", "o = Conv<pads=[1,1,1,1]>(s, w1)\n m = Mul(o, p)\n r = Relu(m)")),
    ({"w1": weights()["w1"][..., :1]}, STREAM.replace("p = Conv<pads=[1,1,1,1]>", "p = Conv<pads=[1,0,1,0]>")),
])  # fmt: skip
def test_what_runs_sparse_shares_its_weight_or_was_not_measured_reads_all(change: dict[str, Floats], text: str) -> None:
    _, report = narrowed(build(text, weights() | change, 17), fit())
    assert report.narrowed == ("q",)


def test_the_constant_that_stands_for_others_is_among_those_that_are_picked() -> None:
    arrays = weights()
    constant = slice(3, 20)
    arrays["w0"][constant] = arrays["w2"][constant] = 0
    arrays["w1"][:, constant], arrays["w3"][:, constant] = weight(24, 17, 3, 3, seed=4), 0
    _, report = narrowed(build(STREAM, arrays, 17), fit())
    after = {layer.name: layer.after for layer in report.layers}
    assert (after["s"], after["p"]) == ((16, 3, 1, 1), (24, 4, 3, 3))  # 1, 20, 31, and one constant for all
