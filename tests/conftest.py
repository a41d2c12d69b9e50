"""Models that several parts measure."""

from pathlib import Path

import pytest

from tests.onnx_shift.models import digits_network


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [digits_network(folder / "dense.onnx", 64, ratio="1"), digits_network(folder / "small.onnx", 16, ratio="4")]
