"""Choosing the margin of a cascade on held-out images."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from onnx_shift.portfolio.cascade import Judged, cascades_of, choose_margin
from onnx_shift.portfolio.evaluation import evaluation
from onnx_shift.portfolio.profile import Cascade, Profile, ProfileError
from onnx_shift.portfolio.profiling import measure_accuracy, profile
from onnx_shift.runtime.cascade import margins
from tests.portfolio.models import QUICK, save

SHARED = Path(__file__).parents[3] / "shared"


def judged(apart: list[float], right: list[int]) -> Judged:
    return Judged(np.array(apart), np.array(right, bool))


def test_as_many_images_are_passed_on_as_make_both_as_accurate_as_the_larger() -> None:
    small = judged([0.5, 0.1, 0.2, 0.9, 0.3], [1, 0, 0, 1, 1])  # by margin: wrong, wrong, right, right, right
    large = judged([1.0] * 5, [1, 1, 0, 1, 1])
    assert choose_margin(small, large) == Cascade(0.2, 0.2, 0.8)
    every = judged([1.0] * 5, [1, 1, 1, 1, 1])
    assert choose_margin(small, every) == Cascade(0.3, 0.4, 1.0)


def test_images_with_one_margin_are_passed_on_together() -> None:
    small = judged([0.1, 0.1, 0.2], [0, 1, 1])
    assert choose_margin(small, judged([1.0] * 3, [1, 1, 1])) == Cascade(0.2, 2 / 3, 1.0)


def test_there_is_no_margin_where_asking_does_not_help() -> None:
    small = judged([0.1, 0.2], [1, 0])
    assert choose_margin(small, judged([1.0] * 2, [0, 1])) is None  # as accurate by itself
    assert choose_margin(judged([0.1, 0.1], [0, 0]), judged([1.0] * 2, [1, 0])) is None  # no margin tells them apart


def test_only_larger_models_are_asked() -> None:
    poor, good = judged([0.1, 0.2], [0, 1]), judged([0.1, 0.2], [1, 1])
    assert cascades_of({"small": poor, "large": good}) == {"small": {"large": Cascade(0.2, 0.5, 1.0)}, "large": {}}
    assert cascades_of({"small": good, "large": poor}) == {"small": {}, "large": {}}


def test_profile_chooses_margins_and_keeps_them_in_its_file(tmp_path: Path) -> None:
    weights = np.zeros((72, 7), np.float32)
    weights[np.arange(7), np.arange(7)] = 1
    halved = weights.copy()
    halved[3, 3] = 0.5
    weights[71, 0] = 1e-6  # one weight more
    body = "f = Flatten(input)\n logits = MatMul(f, w)"
    models = [save(tmp_path / "large.onnx", body, {"w": weights})]
    models.append(save(tmp_path / "small.onnx", body, {"w": halved}))
    pixels = np.random.default_rng(0).standard_normal((200, 2, 6, 6)).astype(np.float32)
    scores = pixels.reshape(200, -1) @ weights
    settings = replace(QUICK, cascade=True)
    with pytest.raises(ProfileError, match="cascade: margins are chosen on the images of data"):
        profile(models, settings=settings)
    found = profile(models, data=lambda: iter([(pixels, scores.argmax(1))]), settings=settings)
    ((asked, chosen),) = found.variants["small"].cascade.items()
    assert asked == "large" and not found.variants["large"].cascade
    assert chosen.accuracy == 1.0 and 0 < chosen.share < 1
    small = pixels.reshape(200, -1) @ halved
    assert (margins(small) < chosen.margin).mean() == pytest.approx(chosen.share)
    found.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == found


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data" / "cifar10").is_dir(), reason="no shared images beside the repository")
def test_a_trained_pair_is_as_accurate_on_images_that_did_not_choose() -> None:
    models = [SHARED / "models" / f"akamaster__cifar10_resnet{depth}.onnx" for depth in (20, 56)]
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    images = evaluation(str(SHARED / "data" / "cifar10"), models, mean=mean, std=std).batches[models[0]]
    batches = list(islice(images(), 16))
    chose, held_out = ([measure_accuracy(model, batches[start::2]).judged for model in models] for start in (0, 1))
    chosen = choose_margin(*chose)
    assert chosen is not None and chosen.share < 0.25
    small, large = held_out
    both = np.where(small.margins < chosen.margin, large.right, small.right)
    assert both.mean() > large.right.mean() - 0.005 > small.right.mean()
