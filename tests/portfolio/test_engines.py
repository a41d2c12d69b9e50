"""Other runtimes beside onnxruntime in a profile."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner.engines import engine
from onnx_shift.onnx_pruner.engines.engine import CannotRunError
from onnx_shift.portfolio import engines
from onnx_shift.portfolio.profile import Profile, ProfileError
from onnx_shift.portfolio.profiling import DENSE_FUSED, profile
from tests.onnx_pruner.engines.models import skip_unless_installed
from tests.portfolio.models import QUICK, _convolution


def test_a_runtime_is_one_more_provider_and_tells_its_version(tmp_path: Path) -> None:
    skip_unless_installed("openvino")
    models = [_convolution(tmp_path / "dense.onnx", 8, norm=True), _convolution(tmp_path / "small.onnx", 4)]
    found = profile(models, settings=replace(QUICK, runtimes=["openvino"]))
    assert found.machine is not None and found.machine.providers == ("CPUExecutionProvider", "openvino")
    assert found.machine.runtimes["openvino"].startswith("openvino 20")
    assert {name: set(timing.latency) for name, timing in found.on_provider("openvino").items()} == {
        "dense": {1, 4},
        "small": {1, 4},
    }
    assert found.baseline is not None and found.baseline.name == DENSE_FUSED
    assert found.baseline.providers["openvino"].speedup[1].median == 1.0
    assert Profile.from_dict(found.to_dict()) == found


def test_an_unknown_and_a_missing_runtime_are_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match="runtimes abacus: unknown, beside onnxruntime there are openvino, mnn"):
        profile([], settings=replace(QUICK, runtimes=["abacus"]))
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OnnxShiftError, match=r"'mnn' is not installed; install the extra onnx-shift\[mnn\]"):
        profile([], settings=replace(QUICK, runtimes=["mnn"]))


def test_a_model_that_a_runtime_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CannotRunError("no such operator")

    monkeypatch.setattr(engines, "open_model", refuse)
    with pytest.raises(ProfileError, match="a: mnn cannot run it: no such operator"):
        engines.compare_in_engine("mnn", {"a": tmp_path / "a.onnx"}, "a", [1], threads=1, seconds=0.01, attempts=1)
