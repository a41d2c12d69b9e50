"""VGG-16 of full width on CIFAR-10, trained on a graphics card: size, latency on the CPU (the paper's Fig. 6).

Its trainings take a graphics card (`python -m benchmarks train full-imp full-fast`); the rest any machine.
"""

from pathlib import Path
from typing import Any

from benchmarks import latency_and_size
from benchmarks.latency_and_size import PUBLISHED_LOSS, compare_forms, correctness, row
from benchmarks.support import trainings
from onnx_shift.exporter.rounds import Level

TITLE = "VGG-16 of full width: size, latency and correctness (the paper's Fig. 6 and Table 4)"
MINUTES = 9
PICTURE_INCHES = latency_and_size.PICTURE_INCHES

RUNS = {"imp": "full-imp", "fast": "full-fast"}
LEVELS = {"imp": (0, 4, 6, 7, 8), "fast": (2, 3)}
_IMAGE_BATCHES = 4  # of 256: one thread takes minutes for all


def missing() -> str | None:
    """Return why this cannot be measured here, if so."""
    return trainings.missing(*RUNS.values())


def levels_measured() -> dict[str, Level]:
    """Return the levels by name, the dense network first."""
    return {
        f"{name}-{level.level:02d}": level
        for name, numbers in LEVELS.items()
        for level in trainings.run_of(RUNS[name]).levels
        if level.level in numbers
    }


def measure(work: Path) -> dict[str, Any]:
    levels = levels_measured()
    details = compare_forms(levels, work, batches_of_images=_IMAGE_BATCHES)
    figures = figures_of(details)
    dense, last = levels["imp-00"].accuracy, levels["imp-08"]
    return {
        "rows": [row(entry) for entry in details],
        "figures": {
            "dense": 100 * dense,
            "change_256": 100 * (last.accuracy - dense),
            **figures,
        },
        "spread": spread_of(details),
        "details": details,
        "notes": [
            "Levels of VGG-16 of full width (14.7 million parameters) on CIFAR-10, trained by `onnx-shift train` on a "
            f"graphics card, {trainings.recipe_of('full-imp').epochs} epochs a level, one replicate; here onnxruntime "
            "on the CPU, one thread, rounds of all networks in turn, their range in brackets. Speed-ups are over the "
            "dense network with BatchNorm fused; smaller is against the sparse file of the same level.",
            f"Against the sparse outputs on {256 * _IMAGE_BATCHES:,} test images: ours differs by at most "
            f"{figures['largest_difference']:.0e} of their scale and changes {figures['changed_predictions']:.0f} "
            f"answers, the paper's rule {figures['changed_predictions_rule']:.0f}.",
            f"At ratio 256: {100 * (last.accuracy - dense):+.2f} points, {figures['size_ratio_256']:.2f}x smaller, "
            f"{figures['speedup_256']:.2f}x faster; published -1.57 points, 5.14x and up to 1.67x, over a dense one "
            "whose BatchNorm was left unfused. Ours keeps trained weights from level to level, which leaves more "
            "channels with a weight or two. Channel-sparse variants are empty in whole channels: within as many points "
            f"{figures['size_ratio']:.1f}x smaller and {figures['speedup']:.2f}x faster.",
        ],
    }


def speedups_of(details: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return, by the name of the figure, the speed-ups that Fig. 6 states, of `prune` as it is by default: at ratio
    256, and the highest at a loss no larger than published.
    """
    ours = [entry for entry in details if entry["form"] == "ours, multiples of 4"]
    as_accurate = [entry for entry in ours if entry["change"] >= -PUBLISHED_LOSS]
    at_256 = next(entry for entry in ours if entry["level"] == "imp-08")
    found = {}
    for batch in ours[0]["speedup"]:
        suffix = "" if batch == 1 else f"_batch_{batch}"
        found[f"speedup{suffix}"] = max((e["speedup"][batch] for e in as_accurate), key=lambda s: s["median"])
        found[f"speedup_256{suffix}"] = at_256["speedup"][batch]
    return found


def spread_of(details: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return the range over the rounds of these speed-ups."""
    return {name: (found["low"], found["high"]) for name, found in speedups_of(details).items()}


def figures_of(details: list[dict[str, Any]]) -> dict[str, float]:
    """Return what Fig. 6 states: these speed-ups, how much smaller, and how right."""
    ours = [entry for entry in details if entry["form"] == "ours, multiples of 4"]
    smallest = {entry["level"]: entry["smaller"] for entry in details if entry["form"] == "ours, smallest"}
    return {
        "size_ratio": max(entry["smaller"] for entry in ours if entry["change"] >= -PUBLISHED_LOSS),
        "size_ratio_256": smallest["imp-08"],
        **{name: found["median"] for name, found in speedups_of(details).items()},
        "slowest": min(found["median"] for entry in ours for found in entry["speedup"].values()),
        **correctness(details),
    }


draw = latency_and_size.draw
