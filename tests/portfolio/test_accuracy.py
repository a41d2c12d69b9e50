"""How often a model is right."""

from pathlib import Path

import numpy as np
import pytest

from onnx_shift.portfolio.accuracy import measure_accuracy, own_scores
from onnx_shift.portfolio.profile import ProfileError
from tests.portfolio.models import _images, _linear


@pytest.mark.parametrize("batch", ["N", "5"])
def test_accuracy_is_exact_whatever_the_batch(tmp_path: Path, batch: str) -> None:
    model = _linear(tmp_path / "m.onnx", batch=batch)
    batches = [_images(13, 0), _images(8, 1)]
    ranked = (-batches[1][0].reshape(8, -1)[:, :7]).argsort(axis=1)
    batches[1] = (batches[1][0], np.where(np.arange(8) < 3, ranked[:, 4], ranked[:, 5]))
    found = measure_accuracy(model, batches)
    assert found.top1 == pytest.approx(13 / 21)
    assert (found.images, found.classes) == (21, 7)
    assert found.top5 == pytest.approx(16 / 21)


def test_scores_of_ones_own_rank_by_accuracy_or_the_first(tmp_path: Path) -> None:
    model = _linear(tmp_path / "m.onnx")
    assert own_scores(model, lambda infer: 0.5) == {"accuracy": 0.5}
    assert own_scores(model, lambda infer: {"mAP": 0.25, "recall": 0.5})["accuracy"] == 0.25
    assert own_scores(model, lambda infer: {"mAP": 0.25, "accuracy": 0.5})["accuracy"] == 0.5
    with pytest.raises(ProfileError, match=r"m.onnx: .* failed .*ZeroDivisionError"):
        own_scores(model, lambda infer: 1 / 0)
