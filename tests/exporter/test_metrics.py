"""CSV files and TensorBoard."""

from collections.abc import Callable

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter import metrics
from onnx_shift.exporter.recipe import Recipe
from tests.exporter.conftest import Start


def test_a_disk_that_is_full_for_tensorboard_is_one_line(
    tiny_recipe: Recipe, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            return fail

    monkeypatch.setattr(metrics, "_open_board", lambda folder: Full())
    with pytest.raises(OnnxShiftError, match=r"tensorboard: cannot be written \(No space left on device\)"):
        run(tiny_recipe, tensorboard=True)
