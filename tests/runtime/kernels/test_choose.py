import pytest

from onnx_shift.runtime import kernels
from onnx_shift.runtime.kernels import choose
from tests.runtime.kernels.networks import three_convolutions


def test_what_is_slower_as_a_whole_stays_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_in_turn", lambda *_: (1.0, 1.0))
    choice = kernels.compile_model(three_convolutions(0.95))
    assert not choice.changed
    assert not any(node.domain == "onnx_shift" for node in choice.model.graph.node)


def test_a_dense_network_stays_as_it_was() -> None:
    model = three_convolutions(0.0)
    choice = kernels.compile_model(model)
    assert (choice.changed, choice.layers) == (False, ())
    assert choice.model is model
