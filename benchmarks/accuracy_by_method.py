"""Accuracy against ratio by method, on a chain and on a residual network (the paper's Fig. 5)."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.support import trainings
from onnx_shift.exporter.rounds import Run

TITLE = "Accuracy against ratio, by method, chain and residual network (the paper's Fig. 5)"
MINUTES = 0.1
PICTURE_INCHES = (13, 4.6)

PRESET = "imp, as preset"
HIGH = (64, 128, 256)
LEVEL_BY_LEVEL = ("imp", PRESET, "refill")  # others have no levels in between
CHAIN, FULL, RESIDUAL = "VGG-16, quarter width", "VGG-16, full width", "ResNet-20, small training"
FULL_RESIDUAL = "ResNet-20, all images"
COLOURS = {
    "imp": "#0b62c4",
    PRESET: "#60a5fa",
    "refill": "#7c3aed",
    "synflow": "#15803d",
    "one-shot": "#b45309",
    "random": "#6b7280",
    "snip": "#be185d",
    "grasp": "#0e7490",
    "ntk-sap": "#a16207",
}
LABELS = {
    "imp": "iterative magnitude, weights rewound (ours)",
    PRESET: "iterative magnitude as preset (ours)",
    "refill": "channel-sparse: whole channels (ours)",
    "one-shot": "one-shot magnitude",
}
Found = dict[tuple[str, str], dict[int, list[float]]]  # network, method -> ratio -> percent, one per replicate


def missing() -> str | None:
    """Return which training's log is not there that the comparison needs, if so."""
    needed = [name for name, training in trainings.TRAININGS.items() if not training.extra]
    lacking = [name for name in needed if trainings.recorded_run(name) is None]
    return f"no log of the trainings {', '.join(lacking)}" if lacking else None


def measure(work: Path) -> dict[str, Any]:
    del work
    found: Found = defaultdict(lambda: defaultdict(list))
    for name, training in trainings.TRAININGS.items():
        network = _network(training.changes)
        if network is None:
            continue
        run = trainings.recorded_run(name)
        if run is not None:
            _add(found[network, PRESET if name.startswith(("imp-preset", "full-imp")) else run.recipe.method], run)
    ratios = sorted({ratio for by_ratio in found.values() for ratio in by_ratio})
    rows = [_row(network, method, by_ratio, ratios) for (network, method), by_ratio in found.items()]
    chain, residual = (_means(found, network) for network in (CHAIN, RESIDUAL))
    imp, as_preset, full = chain["imp"], chain[PRESET], _means(found, FULL)[PRESET]
    figures = {
        "dense": as_preset[1],
        **{f"change_{ratio}": as_preset[ratio] - as_preset[1] for ratio in HIGH if ratio in as_preset},
        **{f"rewound_change_{ratio}": imp[ratio] - imp[1] for ratio in HIGH},
        "imp_ahead_64": _ahead(chain, 64),
        "synflow_64": chain["synflow"][64],
        "residual_imp_ahead_32": _ahead(residual, 32),
        "residual_synflow_32": residual["synflow"][32],
        "full_dense": full[1],
        **{f"full_change_{ratio}": full[ratio] - full[1] for ratio in HIGH},
    }
    recipe, as_preset_recipe = trainings.recipe_of("imp"), trainings.recipe_of("imp-preset")
    small, full_recipe = trainings.recipe_of("residual-imp"), trainings.recipe_of("full-imp")
    notes = [
        f"Per cent of the 10,000 CIFAR-10 test images, as the trainer measured. {CHAIN}: all 50,000 training images, "
        f"{recipe.epochs} epochs per level, as preset {as_preset_recipe.epochs}. "
        f"ResNet-20: {small.train_images:,} images and {small.epochs} epochs per "
        "level, far too short for the accuracy it is known for; it shows the order of the methods, no more. "
        "Replicates as stated: with one, differences of about half a point mean nothing. Methods without levels in "
        "between are trained at one high ratio only.",
        f"At ratio 64 iterative magnitude, weights rewound, is {figures['imp_ahead_64']:.1f} points ahead of the "
        "next method; it costs a training per level, where the others need one for any ratio.",
        "On the residual network at ratio 32: "
        + ", ".join(f"{method} {by_ratio[32]:.1f}" for method, by_ratio in residual.items() if 32 in by_ratio)
        + ".",
        "Published for full VGG-16 and 160 epochs, points lost at ratio 256: iterative magnitude 1.57, NTK-SAP 5.15, "
        f"SynFlow 6.21, random 31.09, one-shot collapses. {FULL}, ours as preset, {full_recipe.epochs} epochs a level, "
        f"minutes of a graphics card: {figures['full_change_64']:+.2f} at 64 and {figures['full_change_256']:+.2f} at "
        f"256. {CHAIN}, has a sixteenth of the weights, 3,592 at 256. With "
        f"weights rewound as published it loses {-figures['rewound_change_128']:.2f} at 128 and "
        f"{-figures['rewound_change_256']:.2f} at 256, as hardly a weight is left in the last layers. The preset "
        "lets no layer starve, keeps trained weights and moves images less, in fewer epochs: "
        + ", ".join(f"{as_preset[ratio] - as_preset[1]:+.2f} points at {ratio}" for ratio in HIGH if ratio in as_preset)
        + ".",
    ]
    return {
        "rows": rows,
        "figures": figures,
        "notes": notes,
        "details": [
            {"network": network, "method": method, "accuracy": by_ratio}
            for (network, method), by_ratio in found.items()
        ],
    }


def _network(changes: Mapping[str, Any]) -> str | None:
    """Return the network that a training of such changes is shown under; None for the structured peers."""
    if "model" in changes:
        residual = RESIDUAL if "train_images" in changes else FULL_RESIDUAL
        return residual if changes["model"] == "resnet20-cifar" else None
    return FULL if changes.get("width") == 1.0 else CHAIN


def _add(by_ratio: dict[int, list[float]], run: Run) -> None:
    for level in run.levels:
        by_ratio[round(level.ratio)].append(100 * level.accuracy)


def _row(network: str, method: str, by_ratio: Mapping[int, list[float]], ratios: list[int]) -> dict[str, Any]:
    shown = {f"{ratio}x": f"{statistics.mean(by_ratio[ratio]):.1f}" if by_ratio.get(ratio) else "–" for ratio in ratios}
    return {"network": network, "method": method, "replicates": len(by_ratio[1]), **shown}


def _means(found: Found, network: str) -> dict[str, dict[int, float]]:
    return {
        method: {ratio: statistics.mean(values) for ratio, values in by_ratio.items()}
        for (where, method), by_ratio in found.items()
        if where == network
    }


def _ahead(means: Mapping[str, Mapping[int, float]], ratio: int) -> float:
    """Return by how many points iterative magnitude leads the best method of others."""
    others = [by_ratio[ratio] for name, by_ratio in means.items() if name not in LEVEL_BY_LEVEL and ratio in by_ratio]
    return means["imp"][ratio] - max(others)


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    panels = figure.subplots(1, 3)
    for axes, network in zip(panels, (CHAIN, FULL, RESIDUAL), strict=True):
        entries = [entry for entry in result["details"] if entry["network"] == network]
        for entry in entries:
            _draw_method(axes, entry["method"], {int(r): v for r, v in entry["accuracy"].items()})
        ratios = [2**level for level in range(max(int(r) for e in entries for r in e["accuracy"]).bit_length())]
        lowest = min(percent for e in entries for replicates in e["accuracy"].values() for percent in replicates)
        axes.set(xscale="log", xlabel="ratio: prunable weights over those left", title=network)
        axes.set_xticks(ratios, [str(ratio) for ratio in ratios], minor=False)
        axes.minorticks_off()
        if lowest < 50:
            axes.axhline(10, color="black", linewidth=0.8, linestyle=":")
            axes.annotate("guessing", (ratios[0], 10), xytext=(0, 3), textcoords="offset points", fontsize=8)
            axes.set_ylim(bottom=5)
        else:
            axes.set_ylim(lowest - 1)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 0.08))
    panels[0].set_ylabel("test accuracy, %")


def _draw_method(axes: Axes, method: str, accuracy: Mapping[int, list[float]]) -> None:
    ratios = sorted(accuracy)
    means = [statistics.mean(accuracy[ratio]) for ratio in ratios]
    below = [mean - min(accuracy[ratio]) for mean, ratio in zip(means, ratios, strict=True)]
    above = [max(accuracy[ratio]) - mean for mean, ratio in zip(means, ratios, strict=True)]
    style = "o-" if method in LEVEL_BY_LEVEL else "o:"
    axes.errorbar(
        ratios,
        means,
        (below, above),
        fmt=style,
        markersize=4,
        capsize=2,
        color=COLOURS[method],
        label=LABELS.get(method, method),
    )
