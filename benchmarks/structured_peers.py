"""Structured pruning by Torch-Pruning beside ours (the paper's Table 4).

Peers start from our dense network's trained weights: the same share of every layer's filters is removed in steps until
a part of the parameters is left; then the network is trained for as many epochs, on the same images and with the same
schedule, as the dense one was. These trainings are made like all others; factories here make, always the same, the
networks that they start from.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from matplotlib.figure import Figure
from onnx import numpy_helper
from torch import nn

from benchmarks.support import trainings
from benchmarks.support.variants import answers, labels_of, pruned_levels, pruned_variants, test_images
from onnx_shift.exporter.checkpoint import load_checkpoint
from onnx_shift.exporter.run_folder import RunFolder
from onnx_shift.models.registry import build
from onnx_shift.onnx_pruner.prune import prune
from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import Portfolio

TITLE = "Structured peers: parameters, bytes and accuracy (the paper's Table 4)"
MINUTES = 2
PICTURE_INCHES = (11, 4.6)

CRITERIA = {"l1": "l1-norm filters", "similar": "similar filters (geometric median)"}
PARTS = (4, 7, 16)  # one in this many parameters is left; 7: as many as in our fastest variant
OURS = {"imp": "ours, iterative magnitude", "fast": "ours, channel-sparse"}
_COLOURS = dict(zip((*OURS.values(), *CRITERIA.values()), ("#0b62c4", "#7c3aed", "#b45309", "#15803d"), strict=True))
_STEPS = 400
_PRESET = "imp-preset"  # its dense network is what peers start from


def missing() -> str | None:
    """Return why this cannot be measured here, if so: a peer at least is needed."""
    return trainings.missing(_PRESET, *(f"peer-{criterion}-7" for criterion in CRITERIA))


def measure(work: Path) -> dict[str, Any]:
    models = [(OURS[variant.path.stem.split("-")[0]], variant.path) for variant in pruned_variants(work / "ours")]
    for part in PARTS:
        for criterion, label in CRITERIA.items():
            name = f"peer-{criterion}-{part}"
            run = trainings.finished_run(name)
            if run is not None:
                models.append((label, pruned_levels(run, work / name, align=1)[0]))
    images = test_images(models[0][1])
    labels = labels_of(images())
    details = []
    for label, path in models:
        accuracy = 100 * float((answers(path, images()).argmax(1) == labels).mean())
        details.append({"pruned by": label, "accuracy": accuracy, **_sizes(path, work)})
    dense = details[0]
    figures = {"dense": dense["accuracy"]}
    for key in ("deflated", "parameters"):
        figures[f"points_ahead_{key}"] = _points_ahead(details, key)
    epochs = trainings.recipe_of(_PRESET).epochs
    return {
        "rows": [_row(entry, dense["accuracy"]) for entry in details],
        "figures": {key: value for key, value in figures.items() if value is not None},
        "details": details,
        "notes": [
            f"Quarter-width VGG-16 on CIFAR-10, one replicate. Peers: filters of the trained dense network removed by "
            f"Torch-Pruning, then {epochs} epochs with the images, augmentation and schedule of the dense network. "
            "Ours: levels of one run as `onnx-shift prune` leaves them; a level has as many epochs, but comes after "
            "all levels before it, so that it costs more training in all, and yields them all.",
            "Deflated is what a variant takes in a portfolio, in memory and on the way to the device: there zeros "
            "cost next to nothing. points_ahead_deflated: ours over the best peer, the best of ours that takes no more "
            "deflated bytes; points_ahead_parameters: the same with parameters as they are computed with, zeros "
            "included. The worst case over the peers.",
            "Published for the full network, 160 epochs per training: DNNShifter +0.40 points at 1.02 M non-zero "
            "parameters and +0.33 at 0.21 M; l1-norm -5.14 at 9.57 M; similarity-aware -5.82 at 11.04 M; EasiEdge "
            "-0.22 at 0.76 M; ProsPr -0.28 at 1.00 M.",
        ],
    }


def _sizes(path: Path, work: Path) -> dict[str, int]:
    report = prune(path, verify=False).report
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    pack([path], work / "alone.zip")
    return {
        "parameters": report.parameters_before,
        "nonzero": sum(int(np.count_nonzero(array)) for array in weights if array.dtype == np.float32),
        "deflated": Portfolio.open(work / "alone.zip").variants[0].deflated_bytes,
        "macs": report.macs_before,
    }


def _points_ahead(details: list[dict[str, Any]], key: str) -> float | None:
    """Return by how much ours leads, at worst, at no more of `key` than a peer; None where none of ours is as small."""
    ours = [entry for entry in details if entry["pruned by"] in OURS.values()]
    leads = []
    for peer in (entry for entry in details if entry["pruned by"] in CRITERIA.values()):
        as_small = [entry["accuracy"] for entry in ours if entry[key] <= peer[key]]
        if as_small:
            leads.append(max(as_small) - peer["accuracy"])
    return min(leads, default=None)


def _row(entry: Mapping[str, Any], dense: float) -> dict[str, Any]:
    return {
        "pruned by": entry["pruned by"],
        "parameters": entry["parameters"],
        "not zero": entry["nonzero"],
        "deflated, kB": entry["deflated"] / 1e3,
        "MACs": entry["macs"],
        "accuracy": f"{entry['accuracy']:.2f}%",
        "change, points": round(entry["accuracy"] - dense, 2),
    }


# --- the networks that peers start from: factories for the trainer


@functools.cache
def _slimmed(criterion: str, part: int) -> nn.Module:
    """Return the dense network with the same share of every layer's filters gone, 1/`part` of its parameters left."""
    import torch_pruning as tp

    folder = RunFolder(trainings.FOLDER / _PRESET)
    if not folder.round(0).exists():
        trainings.train_missing(_PRESET)
    checkpoint = load_checkpoint(folder.round(0))
    channels, height, width = checkpoint["shape"]
    recipe = trainings.recipe_of(_PRESET)
    classes = len(checkpoint["class_names"])
    network = build(recipe.model, num_classes=classes, in_channels=channels, width=recipe.width)
    network.load_state_dict(checkpoint["model"])
    importance = {"l1": tp.importance.MagnitudeImportance(p=1), "similar": tp.importance.FPGMImportance(p=2)}
    pruner = tp.pruner.BasePruner(
        network.eval(),
        torch.zeros(1, channels, height, width),
        importance[criterion],
        pruning_ratio=0.99,
        iterative_steps=_STEPS,
        ignored_layers=[network.fc],
    )
    most = _parameters(network) / part
    while _parameters(network) > most:
        pruner.step()
    return network


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _factory(criterion: str, part: int) -> Callable[[], nn.Module]:
    return lambda: copy.deepcopy(_slimmed(criterion, part))


l1_4, l1_7, l1_16 = (_factory("l1", part) for part in PARTS)
similar_4, similar_7, similar_16 = (_factory("similar", part) for part in PARTS)


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    deflated, parameters = figure.subplots(1, 2, sharey=True)
    for axes, key, label in (
        (deflated, "deflated", "deflated, kB"),
        (parameters, "parameters", "thousand parameters"),
    ):
        for name, colour in _COLOURS.items():
            entries = [entry for entry in result["details"] if entry["pruned by"] == name]
            if entries:
                style = "o-" if name in OURS.values() else "s--"
                sizes, accuracy = zip(*((entry[key] / 1e3, entry["accuracy"]) for entry in entries), strict=True)
                axes.plot(sizes, accuracy, style, markersize=5, color=colour, label=name)
        axes.axhline(result["figures"]["dense"], color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.3, which="both")
    deflated.set_ylabel("test accuracy, % (dots: dense)")
    deflated.legend(frameon=False, fontsize="small")
