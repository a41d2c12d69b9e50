"""Two variants at once: a small one answers, a larger one is asked where it is unsure, beside single variants."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.results import in_words, range_of
from benchmarks.support.variants import missing as missing
from benchmarks.support.variants import pruned_variants, test_images
from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profile import Profile
from onnx_shift.portfolio.profiling import Settings, profile
from onnx_shift.portfolio.sessions import session_options
from onnx_shift.runtime import ModelSwitcher

TITLE = "Cascade: a small variant answers, a larger one where it is unsure"
MINUTES = 1.5

BATCHES = (16, 1)
ROUNDS, IMAGES = 9, 1024  # of each, in turn
Batch = tuple[NDArray[Any], NDArray[Any]]


def measure(work: Path) -> dict[str, Any]:
    models = [variant.path for variant in pruned_variants(work / "pruned")]
    return measure_on(models, work, list(test_images(models[0])()))


def measure_on(models: list[Path], work: Path, batches: list[Batch]) -> dict[str, Any]:
    """Choose a pair and its margin on every other batch of test images, and measure it on the others."""
    settings = Settings(batches=BATCHES, seconds=0.5, attempts=3, memory=False, cascade=True)
    found = profile(models, dense=models[0], data=lambda: iter(batches[::2]), settings=settings)
    paths = {path.stem: path for path in models}
    pairs = {pair: estimated_gain(found, *pair) for pair in _pairs(found)}
    if not pairs:
        raise OnnxShiftError("cascade: no larger variant is more accurate than a smaller one, so none has whom to ask")
    ranked = sorted(pairs, key=lambda pair: -pairs[pair])
    small, large = ranked[0]
    accuracy = {name: _accuracy(_alone(name, paths, found, work), batches[1::2]) for name in paths}
    with _both(small, large, paths, found, work) as both:
        right = _accuracy(both, batches[1::2])
        stats = both.stats()
        share = stats["unsure_images"] / (stats["sure_images"] + stats["unsure_images"])
        as_accurate = [name for name in paths if accuracy[name] >= right]
        if not as_accurate:  # more accurate than any single one: beside the most accurate
            as_accurate = [max(accuracy, key=lambda name: accuracy[name])]
        single = min(as_accurate, key=lambda name: _ms_of_image(found, name))
        with _alone(single, paths, found, work) as alone:
            images = np.concatenate([pixels for pixels, _ in batches[1::2]])[:IMAGES]
            seconds = {batch: _timed({"both": both, "alone": alone}, images, batch) for batch in BATCHES}
    ratios = {batch: [one["alone"] / one["both"] for one in rounds] for batch, rounds in seconds.items()}
    figures = {
        "throughput_ratio": median(ratios[16]),
        "throughput_ratio_batch_1": median(ratios[1]),
        "accuracy": 100 * right,
        "points_over_single": 100 * (right - accuracy[single]),
        "asked": share,
    }
    rows = [
        _row(f"{small}, asks {large}", right, share, {b: [one["both"] for one in seconds[b]] for b in BATCHES}),
        _row(f"{single} alone", accuracy[single], None, {b: [one["alone"] for one in seconds[b]] for b in BATCHES}),
    ]
    return {
        "rows": rows,
        "tables": {"All pairs, on the images that chose": [_pair_row(found, pair, pairs[pair]) for pair in ranked]},
        "figures": figures,
        "spread": {"throughput_ratio": range_of(ratios[16]), "throughput_ratio_batch_1": range_of(ratios[1])},
        "notes": [
            "Levels of quarter-width VGG-16 on CIFAR-10, one thread, kernels on. Margins and the pair are chosen on "
            "half of the test images, as `onnx-shift profile --cascade` does; accuracy and images per second are of "
            f"the other half, {ROUNDS} rounds in turn, their range in brackets. The single variant is the fastest that "
            "is as accurate there.",
            f"The pair {small} and {large} asks the larger one for {share:.1%} of the images and reaches {right:.2%}; "
            f"{single} alone reaches {accuracy[single]:.2%}, and the pair answers {figures['throughput_ratio']:.2f} "
            f"times as many images per second in batches of 16, {figures['throughput_ratio_batch_1']:.2f} times one by "
            "one. A pair pays where the small variant is much cheaper than the larger: it costs its own time for every "
            "image, and the images that it is unsure of cost both.",
        ],
        "details": found.to_dict(),
    }


def _pairs(found: Profile) -> list[tuple[str, str]]:
    return [(small, large) for small, one in found.variants.items() for large in one.cascade]


def _ms_of_image(found: Profile, name: str) -> float:
    return found.variants[name].timing.latency[16].p50_ms / 16


def estimated_gain(found: Profile, small: str, large: str) -> float:
    """Return how many times as many images a pair would answer as the fastest single variant as accurate as it is, by
    the profile alone.
    """
    chosen = found.variants[small].cascade[large]
    takes_ms = _ms_of_image(found, small) + chosen.share * _ms_of_image(found, large)
    accurate = [name for name, one in found.variants.items() if (one.accuracy or 0.0) >= chosen.accuracy] or [large]
    return min(_ms_of_image(found, name) for name in accurate) / takes_ms


def _alone(name: str, paths: Mapping[str, Path], found: Profile, work: Path) -> ModelSwitcher:
    pack([paths[name]], work / f"{name}.zip", profile=found, keep_all=True)
    return ModelSwitcher(work / f"{name}.zip", session_options(1), cache=work / "cache")


def _both(small: str, large: str, paths: Mapping[str, Path], found: Profile, work: Path) -> ModelSwitcher:
    """Return a switcher over a pair. Packed alone they are neighbours, whatever the portfolio holds between them."""
    only = replace(found.variants[small], cascade={large: found.variants[small].cascade[large]})
    chosen = replace(found, variants={**found.variants, small: only})
    pack([paths[small], paths[large]], work / "pair.zip", profile=chosen, keep_all=True)
    return ModelSwitcher(work / "pair.zip", session_options(1), cache=work / "cache", start=small, cascade=True)


def _accuracy(model: ModelSwitcher, batches: list[Batch]) -> float:
    name = model.get_inputs()[0].name
    right = [model.run(None, {name: images})[0].argmax(1) == labels for images, labels in batches]
    return float(np.concatenate(right).mean())


def _timed(models: Mapping[str, ModelSwitcher], images: NDArray[Any], batch: int) -> list[dict[str, float]]:
    """Return the seconds that each takes for all `images`, of every round."""
    if batch == 1:
        images = images[: len(images) // 4]
    name = next(iter(models.values())).get_inputs()[0].name
    feeds = [{name: images[start : start + batch]} for start in range(0, len(images), batch)]
    rounds = []
    for number in range(ROUNDS):
        order = list(models) if number % 2 else list(models)[::-1]
        rounds.append({which: _seconds(models[which].run, feeds) / len(images) for which in order})
    return rounds[1:]  # the first warms up


def _seconds(run: Callable[..., Any], feeds: list[dict[str, Any]]) -> float:
    started = time.perf_counter()
    for feed in feeds:
        run(None, feed)
    return time.perf_counter() - started


def _row(name: str, accuracy: float, asked: float | None, seconds: Mapping[int, list[float]]) -> dict[str, Any]:
    return {
        "served by": name,
        "accuracy": f"{accuracy:.2%}",
        "larger asked": "–" if asked is None else f"{asked:.1%}",
        "images/s, batch 16": in_words(1 / one for one in seconds[16]),
        "images/s, batch 1": in_words(1 / one for one in seconds[1]),
    }


def _pair_row(found: Profile, pair: tuple[str, str], gain: float) -> dict[str, Any]:
    small, large = pair
    chosen = found.variants[small].cascade[large]
    return {
        "answers": small,
        "is asked": large,
        "margin": chosen.margin,
        "share": f"{chosen.share:.1%}",
        "accuracy": f"{chosen.accuracy:.2%}",
        "µs an image": 1e3 * (_ms_of_image(found, small) + chosen.share * _ms_of_image(found, large)),
        "over the fastest as accurate": gain,
    }
