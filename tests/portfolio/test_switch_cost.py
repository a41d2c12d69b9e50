"""What a variant takes in a portfolio."""

from pathlib import Path

import onnx
import onnx.parser
import pytest

from onnx_shift.portfolio.profiling import profile
from tests.portfolio.models import QUICK, _convolution


def test_zeros_deflate_and_noise_is_stored(tmp_path: Path) -> None:
    noise = _convolution(tmp_path / "noise.onnx", 64)
    model = onnx.load(noise)
    model.graph.initializer[2].raw_data = bytes(len(model.graph.initializer[2].raw_data))
    onnx.save(model, tmp_path / "zeros.onnx")
    found = profile([noise, tmp_path / "zeros.onnx"], settings=QUICK).variants
    noise_bytes, zeros_bytes = found["noise"].deflated_bytes, found["zeros"].deflated_bytes
    assert noise_bytes is not None and zeros_bytes is not None
    assert noise_bytes == pytest.approx(4 * (found["noise"].parameters or 0), rel=0.07)
    assert zeros_bytes < noise_bytes / 4
