from pathlib import Path

import onnxruntime as ort
import pytest

from onnx_shift.runtime import kernels
from onnx_shift.runtime.errors import KernelsError


def test_without_the_library_registering_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("onnx_shift.runtime.kernels.registration.SOURCES", tmp_path)
    assert not kernels.available()
    with pytest.raises(KernelsError, match="there was no C compiler"):
        kernels.register(ort.SessionOptions())


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.missing() is None and kernels.identity()
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "none")
    assert (kernels.missing(), kernels.identity()) == ("switched off by ONNX_SHIFT_KERNELS", "")
