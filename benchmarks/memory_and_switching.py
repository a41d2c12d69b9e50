"""Memory and the cost of a switch, of ours and of four other ways to keep variants ready (the paper's Table 5).

For memory each way runs in a process of its own; switches are timed in one process, all ways in turn.
"""

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnx.parser
from matplotlib.figure import Figure
from onnx import helper, numpy_helper

from benchmarks.results import in_words, range_of
from benchmarks.variants import FUSE_ONLY, Pruned, portfolio_worth_shipping, pruned_variants
from benchmarks.ways import WAYS, feed_of
from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.packing import pack
from onnx_shift.runtime import Portfolio

TITLE = "Memory and switches: ours, open sessions, reloading, one network re-configured (the paper's Table 5)"
MINUTES = 2
PICTURE_INCHES = (10, 4.6)

VISITS = 81  # over a minute: a machine that others use is not the same one after it
CHILDREN = 5
_ALL = "one training"  # the nine levels of plain magnitude, as many as published
_PEERS = {
    "disk": "reload from disk",
    "bytes": "reload from bytes",
    "in_place": "one network, weights exchanged",
}
_IDLE = '<ir_version: 8, opset_import: ["" : 13]> idle (float[1] x) => (float[1] y) { y = Identity(x) }'
_COLOURS = dict(zip(WAYS, ("#0b62c4", "#6b7280", "#b45309", "#d97706", "#15803d"), strict=True))


def measure(work: Path) -> dict[str, Any]:
    variants = {variant.path.stem: variant for variant in pruned_variants(work / "pruned")}
    models = [variant.path for variant in variants.values()]
    chosen = _names_in(portfolio_worth_shipping(models, work / "chosen.zip"))
    selections = {"worth shipping": chosen, _ALL: [name for name in variants if name.startswith("imp")]}
    rows, details = [], {}
    for selection, names in selections.items():
        folder = work / selection.replace(" ", "-")
        request = _request(folder, [variants[name] for name in names])
        switches = _switches(request)
        memory = {way: _memory(way, folder / "request.json") for way in WAYS}
        details[selection] = {"names": names, "switch_ms": switches, "memory_mb": memory}
        rows += [_row(selection, len(names), way, switches[way], memory[way], memory["ours"]) for way in WAYS]
    shown = details[_ALL]
    memory, switches = shown["memory_mb"], shown["switch_ms"]
    least = min(WAYS, key=lambda way: memory[way]["largest"])
    together = memory["all sessions open"]["largest"]
    over = {f"switch_over_{short}": switches[way]["ours_over"] for short, way in _PEERS.items()}
    figures = {
        "memory_smallest_active": memory["ours"]["smallest"] / together,
        "memory_largest_active": memory["ours"]["largest"] / together,
        "switch_ms": switches["ours"]["median"],
        **{key: median(found) for key, found in over.items()},
    }
    return {
        "rows": rows,
        "figures": figures,
        "spread": {key: range_of(found) for key, found in over.items()},
        "details": details,
        "notes": [
            "Levels of quarter-width VGG-16 on CIFAR-10, pruned. A switch is timed until the first "
            "answer to one image, one thread, all ways in turn; in brackets the range. Files are in the page "
            "cache. Memory is resident above imports and an idle onnxruntime, after all variants have served twice, "
            "each way in a process of its own; peak includes the switches. Ours imports "
            f"{memory['ours']['imports']:.1f} MB of Python modules beside onnxruntime.",
            "One network, weights exchanged, stands in for Dynamic-OFA's way: one session of the full-size network "
            "(BatchNorm fused) takes its weights as inputs; each variant's weights lie in memory deflated and a switch "
            "inflates them over the ones in use, zeros and all. Unlike the real one it slices no channels out, so "
            "every variant takes the time of the dense network or more (first answer in the table).",
            f"All {len(shown['names'])} levels of one training: ours needs "
            f"{figures['memory_smallest_active']:.2f} of the memory of all sessions open with the smallest variant "
            f"active and {figures['memory_largest_active']:.2f} with the largest. Sessions that are open already have "
            f"nothing to do at a switch. The least memory takes {least} ({memory[least]['largest']:.1f} MB, ours "
            f"{memory['ours']['largest']:.1f}).",
            "Published, four full VGG-16 variants: ensemble 115.8 MB and 49 ms, Dynamic-OFA 56.2 MB and 512 ms, "
            "DNNShifter 30.4–66.1 MB and 43 ms.",
        ],
    }


def _names_in(portfolio: Path) -> list[str]:
    return [variant.name for variant in Portfolio.open(portfolio)]


def _request(folder: Path, variants: Sequence[Pruned]) -> dict[str, Any]:
    """Write what every way needs into `folder`, smallest variant first, and return where it lies."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {variant.path.stem: variant.path for variant in variants}
    pack(list(models.values()), folder / "portfolio.zip")
    names = _names_in(folder / "portfolio.zip")
    sparse = {variant.path.stem: variant.sparse for variant in variants}
    fused = {name: prune(sparse[name], align=FUSE_ONLY, verify=False).model for name in names}
    skeleton, _ = _weights_outside(fused[names[-1]])
    (folder / "skeleton.onnx").write_bytes(skeleton)
    for name, model in fused.items():
        (folder / f"{name}.weights").write_bytes(zlib.compress(_weights_outside(model)[1], 6))
    (folder / "idle.onnx").write_bytes(onnx.parser.parse_model(_IDLE).SerializeToString())
    (value,) = fused[names[0]].graph.input
    request = {
        "names": names,
        "idle": str(folder / "idle.onnx"),
        "input": value.name,
        "shape": [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim],
        "portfolio": str(folder / "portfolio.zip"),
        "cache": str(folder / "cache"),
        "models": {name: str(path) for name, path in models.items()},
        "skeleton": str(folder / "skeleton.onnx"),
        "weights": {name: str(folder / f"{name}.weights") for name in names},
    }
    (folder / "request.json").write_text(json.dumps(request))
    return request


def _weights_outside(model: onnx.ModelProto) -> tuple[bytes, bytes]:
    """Return the model with its weights as inputs, and the weights in the order of those inputs."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, parts = changed.graph, []
    weights = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    for tensor in sorted(weights, key=lambda tensor: tensor.name):
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        parts.append(numpy_helper.to_array(tensor).tobytes())
        graph.initializer.remove(tensor)
    return changed.SerializeToString(), b"".join(parts)


# --- measuring


def _switches(request: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return milliseconds of a switch until the first answer, over all variants, and of an answer after it."""
    feed, names = feed_of(request), request["names"]
    ways = {way: make(request) for way, make in WAYS.items()}
    first: dict[str, list[list[float]]] = {way: [] for way in ways}
    later: dict[str, list[list[float]]] = {way: [] for way in ways}
    expected = {}
    for visit in range(VISITS + 1):
        rounds: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
        for name in names if visit % 2 else reversed(names):
            for way, ready in ways.items():
                times = [time.perf_counter()]
                ready.switch(name)
                answer = ready.run(feed)
                times.append(time.perf_counter())
                ready.run(feed)
                times.append(time.perf_counter())
                rounds[way][0].append((times[1] - times[0]) * 1e3)
                rounds[way][1].append((times[2] - times[1]) * 1e3)
                wanted = expected.setdefault(name, answer)
                assert np.abs(answer - wanted).max() <= 1e-3 * np.abs(wanted).max(), (way, name)
        if visit:  # the first one warms up: graphs optimised for the device, files in the page cache
            for way, (switching, answering) in rounds.items():
                first[way].append(switching)
                later[way].append(answering)
    return {way: _summary(first[way], later[way], first["ours"]) for way in ways}


def _summary(first: list[list[float]], later: list[list[float]], ours: list[list[float]]) -> dict[str, Any]:
    """Of each visit the mean over the variants, and ours over it; the medians stand for all visits."""
    means = np.mean(first, axis=1)
    return {
        "visits": means.tolist(),
        "median": float(np.median(means)),
        "ours_over": (np.mean(ours, axis=1) / means).tolist(),
        "answer_ms": median(float(np.mean(visit)) for visit in later),
    }


def _memory(way: str, request: Path) -> dict[str, float]:
    """Return megabytes by name, the medians of `CHILDREN` processes: what an allocator returns differs by a fifth."""
    found = [_in_child(way, request) for _ in range(CHILDREN)]
    return {key: median(one[key] for one in found) for key in found[0]}


def _in_child(way: str, request: Path) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.ways", way, str(request)]
    found: dict[str, float] = json.loads(
        subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return found


def _row(
    selection: str,
    count: int,
    way: str,
    switches: Mapping[str, Any],
    memory: Mapping[str, float],
    ours: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "variants": f"{selection} ({count})",
        "way": way,
        "smallest active, MB": memory["smallest"],
        "largest active, MB": memory["largest"],
        "over ours": f"{memory['smallest'] / ours['smallest']:.2f}–{memory['largest'] / ours['largest']:.2f}",
        "peak, MB": memory["peak"],
        "switch and first answer, ms": in_words(switches["visits"]),
        "next answer, ms": switches["answer_ms"],
    }


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    shown = result["details"][_ALL]
    memory, switching = figure.subplots(1, 2)
    ways = list(reversed(WAYS))
    for place, way in enumerate(ways):
        found = shown["memory_mb"][way]
        low, high = sorted((found["smallest"], found["largest"]))
        memory.barh(place, high, color=_COLOURS[way], alpha=0.35)
        memory.barh(place, low, color=_COLOURS[way])
        memory.annotate(
            f"{low:.1f}–{high:.1f}" if high - low > 0.1 else f"{low:.1f}",
            (high, place),
            xytext=(4, -3),
            textcoords="offset points",
            fontsize=8,
        )
        cost = shown["switch_ms"][way]
        switching.barh(place, cost["median"], color=_COLOURS[way])
        switching.barh(place, cost["answer_ms"], color="white", alpha=0.5)
        switching.annotate(
            f"{cost['median']:.1f}",
            (cost["median"], place),
            xytext=(4, -3),
            textcoords="offset points",
            fontsize=8,
        )
    count = len(shown["names"])
    memory.set_yticks(range(len(ways)), ways)
    memory.set(title=f"resident, MB, {count} variants", xlabel="dark: smallest active; pale: largest")
    switching.set_yticks([])
    switching.set(title="a switch until the first answer, ms", xlabel="pale: an answer alone")
    for axes in (memory, switching):
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
