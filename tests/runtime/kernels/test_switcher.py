"""A switcher whose variants' sparse layers run on our kernels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import ModelSwitcher, kernels
from onnx_shift.runtime.kernels import choose
from tests.runtime.kernels.networks import Writer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A portfolio of two networks with 95 % and 98 % zeros, large enough that our kernels are faster beyond doubt."""
    paths = []
    for zeros in (0.95, 0.98):
        writer = Writer(np.random.default_rng(0))
        value, channels = "x", 3
        for outputs in (128, 128, 128):
            weights = writer.tensor(outputs, channels, 3, 3, zeros=0.0 if channels == 3 else zeros)
            value = writer.add("Relu", writer.add("Conv", value, weights, writer.tensor(outputs), pads=[1] * 4))
            channels = outputs
        model = writer.model({"x": ["N", 3, 24, 24]}, value)
        paths.append(tmp_path / f"zeros{100 * zeros:.0f}.onnx")
        onnx.save(model, paths[-1])
    pack(paths, tmp_path / "portfolio.zip")
    return tmp_path / "portfolio.zip"


@pytest.fixture
def open_switcher(source: Path, tmp_path: Path, options: ort.SessionOptions) -> Callable[[], ModelSwitcher]:
    return lambda: ModelSwitcher(source, options, ["CPUExecutionProvider"], cache=tmp_path / "cache")


def _answers(model: ModelSwitcher, x: np.ndarray) -> list[np.ndarray]:
    found = []
    for name in ("zeros98", "zeros95"):
        model.switch(name)
        found.append(model.run(None, {"x": x})[0])
    return found


def test_answers_equal_the_dense_ones(
    open_switcher: Callable[[], ModelSwitcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 24, 24)).astype(np.float32)
    with open_switcher() as model:
        sparse = _answers(model, x)
        held_bytes = model.portfolio.stored_bytes
        ours = [model.portfolio.prepared(name, key).kernels for name, key in model._leases.choice.builder._keys.items()]
    assert ours == [True, True]
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "none")
    with open_switcher() as model:
        dense = _answers(model, x)
        assert held_bytes < model.portfolio.stored_bytes
    for found, expected in zip(sparse, dense, strict=True):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_what_was_chosen_is_kept(open_switcher: Callable[[], ModelSwitcher], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_switcher() as model:
        _answers(model, np.zeros((1, 3, 24, 24), np.float32))
    monkeypatch.setattr(choose, "choose", None)  # choosing again would fail
    with open_switcher() as model:
        assert [model.portfolio.prepared(*item).kernels for item in model._leases.choice.builder._keys.items()] == [
            True,
            True,
        ]


def test_another_build_of_the_kernels_is_measured_anew(
    open_switcher: Callable[[], ModelSwitcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_switcher() as model:
        before = model._leases.choice.builder._keys
    monkeypatch.setattr("onnx_shift.runtime.cache.kernels.identity", lambda: "another")
    with open_switcher() as model:
        assert not set(before.values()) & set(model._leases.choice.builder._keys.values())


def test_without_the_library_sparse_layers_run_dense(
    open_switcher: Callable[[], ModelSwitcher], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("onnx_shift.runtime.kernels.registration.SOURCES", tmp_path)
    assert kernels.library() is None
    with open_switcher() as model:
        assert model.run(None, {"x": np.zeros((1, 3, 24, 24), np.float32)})[0].shape == (1, 128, 24, 24)
        assert not model._leases.choice.builder._contents[model.active.name].kernels
