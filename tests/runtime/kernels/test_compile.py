"""Measuring, choosing and writing a model that plain onnxruntime runs with our kernels."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_shift.commands import compile_file
from onnx_shift.runtime import kernels
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.kernels import choose
from tests.runtime.kernels.networks import Writer, session


def _network(zeros: float) -> onnx.ModelProto:
    writer = Writer(np.random.default_rng(0))
    value = "x"
    for channels in (3, 64, 64):
        value = writer.add(
            "Relu", writer.add("Conv", value, writer.tensor(64, channels, 3, 3, zeros=zeros), pads=[1] * 4)
        )
    return writer.model({"x": ["N", 3, 16, 16]}, value)


def test_sparse_layers_are_chosen_and_answers_stay() -> None:
    model = _network(0.95)
    choice = kernels.compile_model(model)
    assert choice.changed
    assert choice.sparse_ms < choice.dense_ms
    assert len(choice.layers) == 3
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected, found = (session(network).run(None, {"x": x})[0] for network in (model, choice.model))
    assert np.abs(expected - found).max() < 1e-5 * np.abs(expected).max()


def test_a_dense_network_stays_as_it_was() -> None:
    model = _network(0.0)
    choice = kernels.compile_model(model)
    assert (choice.changed, choice.layers) == (False, ())
    assert choice.model is model


def test_what_is_slower_as_a_whole_stays_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_in_turn", lambda *_: (1.0, 1.0))
    choice = kernels.compile_model(_network(0.95))
    assert not choice.changed
    assert not any(node.domain == "onnx_shift" for node in choice.model.graph.node)


def test_a_model_that_does_not_run_is_refused_in_one_line() -> None:
    model = _network(0.95)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(KernelsError, match=r"cannot be compiled: .*NoSuchOperator"):
        kernels.compile_model(model)


def test_the_command_writes_what_plain_onnxruntime_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(_network(0.95), tmp_path / "sparse.onnx")
    compile_file(tmp_path / "sparse.onnx", tmp_path / "fast.onnx", 1, [], threads=1, layers=True, as_json=False)
    assert "3 layers of 3 on our kernels" in " ".join(capsys.readouterr().out.split())
    options = ort.SessionOptions()
    kernels.register(options)
    fast = ort.InferenceSession(tmp_path / "fast.onnx", options, providers=["CPUExecutionProvider"])
    assert fast.run(None, {"x": np.zeros((3, 3, 16, 16), np.float32)})[0].shape == (3, 64, 16, 16)


def test_without_the_library_registering_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("onnx_shift.runtime.kernels.registration.SOURCES", tmp_path)
    assert not kernels.available()
    with pytest.raises(KernelsError, match="there was no C compiler"):
        kernels.register(ort.SessionOptions())
