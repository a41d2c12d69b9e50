"""The portfolio of one training on CIFAR-10, variant by variant, and what finding it costs (the paper's Table 3)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.support import trainings
from benchmarks.support.results import shown_range
from benchmarks.support.variants import missing as missing
from benchmarks.support.variants import pruned_variants, shipped_runs, test_images
from onnx_shift.exporter.rounds import Run
from onnx_shift.portfolio.profile import Profile, Variant
from onnx_shift.portfolio.profiling import Settings, profile
from onnx_shift.portfolio.select import DEFAULT_METRICS, select

TITLE = "CIFAR-10: nine variants from one training, and what the search costs (the paper's Table 3)"
MINUTES = 2.5
PICTURE_INCHES = (11, 4.6)

SECONDS, ATTEMPTS = 1.0, 3
#: What Table 3 compares, accuracy and non-zero parameters; deflated, a variant takes what its non-zeros do.
SEARCHED = ("accuracy", "deflated")
_COLOURS = {"imp": "#0b62c4", "fast": "#7c3aed"}
_LABELS = {"imp": "iterative magnitude", "fast": "channel-sparse"}
_PUBLISHED = [
    {"search": "PreNAS (published)", "variants": 1770, "device-days": 9.11, "Pareto-optimal, %": 0.39},
    {"search": "RepVGG (published)", "variants": 228, "device-days": 26.09, "Pareto-optimal, %": 5.70},
    {"search": "DARTS (published)", "variants": 50, "device-days": 1.77, "Pareto-optimal, %": 8.00},
    {"search": "DNNShifter (published)", "variants": 9, "device-days": 0.28, "Pareto-optimal, %": 44.44},
]


def measure(work: Path) -> dict[str, Any]:
    runs = shipped_runs()
    models = [variant.path for variant in pruned_variants(work / "pruned", collapsed=True)]
    found = profile(
        models,
        dense=models[0],
        data=test_images(runs["imp"].levels[0].onnx),
        settings=Settings(batches=(1, 16), seconds=SECONDS, attempts=ATTEMPTS),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    )
    found.save(work / "profile.json")
    return results_of(found, runs)


def results_of(found: Profile, runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return what the profile of the variants of `runs` tells."""
    variants = found.variants
    names = {run: [name for name in variants if name.startswith(run)] for run in runs}
    optimal = {run: _efficiency(found, names[run], SEARCHED) for run in runs}
    kept = select(found)
    dense = variants[str(found.dense)]
    days = {name: trainings.training_hours(run) / 24 for name, run in runs.items()}
    rows = [
        *_PUBLISHED,
        *(
            {
                "search": f"ours, {_LABELS[name]}",
                "variants": len(names[name]),
                "device-days": round(days[name], 3),
                "Pareto-optimal, %": round(100 * share, 2),
            }
            for name, share in optimal.items()
        ),
        *_full_width(trainings.recorded_run("full-imp")),
    ]
    # Of its log, where the dense network of a training is not kept.
    of_dense = {name: trainings.dense_accuracy(run) for name, run in runs.items()}
    of_dense |= {name: _accuracy(variants[f"{name}-00"]) for name in runs if f"{name}-00" in variants}
    lost = {name: of_dense[name.split("-")[0]] - _accuracy(entry) for name, entry in variants.items()}
    table = [_row(name, entry, lost[name], kept.dropped.get(name)) for name, entry in variants.items()]
    fast, equal = _fastest(variants, lost, 0.01), _fastest(variants, lost, 0.0)
    smallest = min((variants[name] for name in kept.kept), key=lambda entry: entry.file_bytes)
    # What computes as the dense network does is that network: its speed-up is the measurement's noise.
    smaller = [entry for entry in variants.values() if entry.structure != dense.structure]
    speedups = [entry.timing.speedup[batch].median for entry in smaller for batch in (1, 16)]
    ours = {
        f"{which}_speedup{suffix}": variants[name].timing.speedup[batch]
        for which, name in (("one_point", fast), ("equal", equal))
        for suffix, batch in (("", 1), ("_batch_16", 16))
    }
    figures = {
        "search_efficiency": optimal["imp"],
        "shipping_efficiency": _efficiency(found, names["imp"], DEFAULT_METRICS),
        "training_hours": 24 * days["imp"],
        "dense_accuracy": 100 * _accuracy(dense),
        "size_ratio": dense.file_bytes / smallest.file_bytes,
        **{key: speedup.median for key, speedup in ours.items()},
        "slowest_speedup": min(speedups),
    }
    epochs = ", ".join(f"{run.recipe.epochs} epochs per level {_LABELS[name]}" for name, run in runs.items())
    return {
        "rows": rows,
        "tables": {"The variants, after `onnx-shift prune`": table},
        "figures": figures,
        "spread": {key: (speedup.low, speedup.high) for key, speedup in ours.items()},
        "notes": [
            f"Ours: quarter-width VGG-16, {epochs}, on all 50,000 images, one replicate, days of two cores "
            "of a CPU; the last row full width on one NVIDIA H200, which two trainings shared. Published: the full "
            "network on older cards. "
            "Optimal in accuracy and deflated size, in the last row weights left, which is what the published "
            "counts of non-zero parameters come to, among the variants of that search; one no better than "
            "guessing, or that another replaces within the tolerances, is not counted. "
            "In accuracy, latency and file size, which decide what `pack` keeps, "
            f"{figures['shipping_efficiency']:.0%} of ours are: at the lower ratios the networks have one structure, "
            "and the most accurate stands for all of them.",
            f"Fastest within one point of the dense network of its own training: {fast}, "
            f"{figures['one_point_speedup']:.2f}x at batch 1 and {figures['one_point_speedup_batch_16']:.2f}x at "
            f"batch 16; at no loss at all: {equal}, {figures['equal_speedup']:.2f}x and "
            f"{figures['equal_speedup_batch_16']:.2f}x. Plain magnitude makes networks much smaller and only a little "
            "faster: it empties the late, cheap layers. Channel-sparse variants are empty in whole "
            "channels of the costly ones.",
            "Speed-ups are over the dense network with BatchNorm fused, onnxruntime on the CPU, one thread, rounds in "
            "turn; in brackets the range of the rounds.",
        ],
        "details": found.to_dict(),
    }


def _full_width(run: Run | None) -> list[dict[str, Any]]:
    """Return the row of the search over full-width networks, optimal in accuracy and non-zero weights."""
    if run is None:
        return []
    best = [
        level
        for level in run.levels
        if not any(other.accuracy >= level.accuracy and other.kept < level.kept for other in run.levels)
    ]
    return [
        {
            "search": "ours, iterative magnitude, full width, a graphics card",
            "variants": len(run.levels),
            "device-days": round(trainings.training_hours(run) / 24, 4),
            "Pareto-optimal, %": round(100 * len(best) / len(run.levels), 2),
        }
    ]


def _efficiency(found: Profile, names: list[str], metrics: Sequence[str]) -> float:
    """Return the share of Pareto-optimal variants."""
    return select(found, names, keep_all=True, metrics=metrics).efficiency


def _fastest(variants: Mapping[str, Variant], lost: Mapping[str, float], most: float) -> str:
    """Return the fastest variant at batch 1 of those that lose at most so much accuracy."""
    enough = [name for name in variants if lost[name] <= most + 1e-9]
    return max(enough, key=lambda name: variants[name].timing.speedup[1].median)


def _row(name: str, entry: Variant, lost: float, dropped: str | None) -> dict[str, Any]:
    return {
        "variant": name,
        "ratio": round(entry.ratio or 1),
        "accuracy": f"{_accuracy(entry):.2%}",
        "change, points": round(-100 * lost, 2),
        "parameters": entry.parameters,
        "MACs": entry.macs,
        "file, kB": entry.file_bytes / 1e3,
        "deflated, kB": (entry.deflated_bytes or 0) / 1e3,
        "speed-up": _speedup(entry, 1),
        "speed-up, batch 16": _speedup(entry, 16),
        "session, MB": entry.timing.memory_mb,
        "switch, ms": entry.switch_ms,
        "kept": "yes" if dropped is None else dropped,
    }


def _speedup(entry: Variant, batch: int) -> str:
    found = entry.timing.speedup[batch]
    return shown_range(found.median, found.low, found.high)


def _accuracy(entry: Variant) -> float:
    assert entry.accuracy is not None  # it was measured on the test images
    return entry.accuracy


_SHOWN_POINTS = 20  # below the dense network: a variant that only guesses would squash all others


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    profile = Profile.from_dict(result["details"])
    variants = profile.variants
    size, one, sixteen = figure.subplots(1, 3, sharey=True)
    panels = [
        (size, lambda entry: entry.file_bytes / 1e3, "file, kB"),
        (
            one,
            lambda entry: entry.timing.speedup[1].median,
            "speed-up over the fused dense network, batch 1",
        ),
        (sixteen, lambda entry: entry.timing.speedup[16].median, "the same, batch 16"),
    ]
    dense = 100 * _accuracy(variants[str(profile.dense)])
    shown = {name: entry for name, entry in variants.items() if 100 * _accuracy(entry) > dense - _SHOWN_POINTS}
    for axes, value, label in panels:
        for run, colour in _COLOURS.items():
            entries = [entry for name, entry in shown.items() if name.startswith(run)]
            sizes, accuracy = (
                [value(entry) for entry in entries],
                [100 * _accuracy(entry) for entry in entries],
            )
            axes.plot(sizes, accuracy, "o-", markersize=4, color=colour, label=_LABELS[run])
            for entry, *where in zip(entries, sizes, accuracy, strict=True):
                axes.annotate(f"{entry.ratio:.0f}", where, xytext=(3, 4), textcoords="offset points", fontsize=7)
        axes.axhline(dense - 1, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    size.set(xlim=(0, None), ylabel="test accuracy, % (points: ratio; dots: dense less 1)")
    hidden = [f"{entry.ratio:.0f}" for name, entry in variants.items() if name not in shown]
    if hidden:
        size.set_title(f"not shown: ratio {', '.join(hidden)}, far below", fontsize=8, loc="left")
    size.legend(frameon=False, fontsize="small", loc="lower right")
