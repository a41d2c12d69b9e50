from collections import Counter

import numpy as np
import onnx
import pytest

from onnx_shift.runtime import kernels
from onnx_shift.runtime.kernels import choose
from onnx_shift.runtime.kernels.rewrite import rewrite
from tests.runtime.kernels.networks import three_convolutions


def test_what_is_slower_as_a_whole_stays_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_in_turn", lambda sessions, _: [1.0] * len(sessions))
    choice = kernels.compile_model(three_convolutions(0.95))
    assert not choice.changed
    assert not any(node.domain == "onnx_shift" for node in choice.model.graph.node)


def test_a_dense_network_stays_as_it_was() -> None:
    model = three_convolutions(0.0)
    choice = kernels.compile_model(model)
    assert (choice.changed, choice.layers) == (False, ())
    assert choice.model is model


def test_answers_that_differ_are_not_served(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def wrong(model: onnx.ModelProto, *rest: object) -> onnx.ModelProto:
        found = rewrite(model, *rest)
        for tensor in found.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.01), tensor.name))
        return found

    monkeypatch.setattr(choose, "rewrite", wrong)
    monkeypatch.setattr(choose, "_in_turn", lambda sessions, _: [2.0, *[1.0] * (len(sessions) - 1)])
    assert not kernels.compile_model(three_convolutions(0.95)).changed
    assert "the sparse kernels' answers differ from the dense ones: they are not used" in caplog.text


@pytest.mark.parametrize("fastest", [1, 2])
def test_a_dense_first_layer_joins_where_the_whole_is_faster_so(monkeypatch: pytest.MonkeyPatch, fastest: int) -> None:
    taken = [3.0, 2.0, 2.0]
    taken[fastest] = 1.0
    monkeypatch.setattr(choose, "_in_turn", lambda sessions, _: taken[: len(sessions)])
    monkeypatch.setattr(choose, "_GAIN", 1e9)  # each sparse layer seems faster
    choice = kernels.compile_model(three_convolutions(0.95, first_zeros=0.0))
    assert Counter(node.op_type for node in choice.model.graph.node)["SparseConv"] == 1 + fastest
    assert (choice.dense_ms, choice.sparse_ms) == (3.0, 1.0)
    assert [(layer.zeros < 0.5, layer.chosen) for layer in choice.layers] == [(True, True)] * (fastest - 1) + [
        (False, True)
    ] * 2
