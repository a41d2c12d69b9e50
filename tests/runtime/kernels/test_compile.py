"""Measuring, choosing and writing a model that plain onnxruntime runs with our kernels."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_shift.commands import compile_file, profile_files, verify_files
from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime import kernels
from onnx_shift.runtime.errors import KernelsError
from tests.runtime.kernels.networks import rewritten, session, three_convolutions


def test_sparse_layers_are_chosen_and_answers_stay() -> None:
    model = three_convolutions(0.95)
    choice = kernels.compile_model(model)
    assert choice.changed
    assert choice.sparse_ms < choice.dense_ms
    assert len(choice.layers) == 3
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected, found = (session(network).run(None, {"x": x})[0] for network in (model, choice.model))
    assert np.abs(expected - found).max() < 1e-5 * np.abs(expected).max()


def test_a_model_that_does_not_run_is_refused_in_one_line() -> None:
    model = three_convolutions(0.95)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(KernelsError, match=r"cannot be compiled: .*NoSuchOperator"):
        kernels.compile_model(model)


def test_the_command_writes_what_plain_onnxruntime_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(three_convolutions(0.95), tmp_path / "sparse.onnx")
    compile_file(tmp_path / "sparse.onnx", tmp_path / "fast.onnx", 1, [], threads=1, layers=True, as_json=False)
    assert re.search(r"\b[123] layers? of 3 on our kernels", " ".join(capsys.readouterr().out.split()))
    options = ort.SessionOptions()
    kernels.register(options)
    fast = ort.InferenceSession(tmp_path / "fast.onnx", options, providers=["CPUExecutionProvider"])
    assert fast.run(None, {"x": np.zeros((3, 3, 16, 16), np.float32)})[0].shape == (3, 64, 16, 16)


def test_a_compiled_model_can_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse, fast = tmp_path / "sparse.onnx", tmp_path / "fast.onnx"
    onnx.save(three_convolutions(0.95), sparse)
    onnx.save(rewritten(three_convolutions(0.95)), fast)
    verify_files(sparse, fast, ["onnxruntime"], 0, as_json=False)
    assert capsys.readouterr().out.startswith("onnxruntime: equal on")
    onnx.save(rewritten(three_convolutions(0.9)), fast)
    with pytest.raises(OnnxShiftError, match=r"sparse\.onnx and .*fast\.onnx are not equal"):
        verify_files(sparse, fast, ["onnxruntime"], 0, as_json=False)


def test_profile_shows_each_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(three_convolutions(0.95), tmp_path / "sparse.onnx")
    asked: dict[str, Any] = {"dense": None, "data": None, "reading": {}, "shapes": []}
    profile_files([tmp_path / "sparse.onnx"], None, layers=True, as_json=True, seconds=0.01, memory=False, **asked)
    (layers,) = json.loads(capsys.readouterr().out)["layers"].values()
    assert len(layers) == 3
    assert all(layer["dense_ms"] > 0 for layer in layers)


def test_profile_without_kernels_has_no_layers_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "none")
    asked: dict[str, Any] = {"dense": None, "data": None, "reading": {}, "shapes": []}
    with pytest.raises(OnnxShiftError, match=r"--layers: there are no sparse kernels to measure \(switched off"):
        profile_files([tmp_path / "sparse.onnx"], None, layers=True, as_json=True, **asked)
