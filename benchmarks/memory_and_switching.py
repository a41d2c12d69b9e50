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

from benchmarks.support.results import in_words, range_of
from benchmarks.support.variants import Pruned, portfolio_worth_shipping, pruned_variants
from benchmarks.support.variants import missing as missing
from benchmarks.support.ways import WAYS, feed_of
from onnx_shift.onnx_pruner import fold_batch_norm
from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import Portfolio

TITLE = "Memory and switches: ours, open sessions, reloading, one network re-configured (the paper's Table 5)"
MINUTES = 1.7
PICTURE_INCHES = (10, 4.6)

BLOCKS = 9  # over minutes: a machine that others use is not the same one after them
VISITS = 9  # of all variants, in a block
_SHIPPED = "worth shipping"  # what `pack` keeps
_ALL = "one training"  # the nine levels of plain magnitude
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
    selections = {_SHIPPED: chosen, _ALL: [name for name in variants if name.startswith("imp")]}
    rows, details = [], {}
    for selection, names in selections.items():
        folder = work / selection.replace(" ", "-")
        switches, memory = _measured(_request(folder, [variants[name] for name in names]), folder / "request.json")
        details[selection] = {"names": names, "switch_ms": switches, "memory_mb": memory}
        rows += [_row(selection, len(names), way, switches[way], memory[way], memory["ours"]) for way in WAYS]
    shown = details[_ALL]
    memory, switches = shown["memory_mb"], shown["switch_ms"]
    least = min(WAYS, key=lambda way: median(memory[way]["largest"]))
    over = {f"switch_over_{short}": switches[way]["ours_over"] for short, way in _PEERS.items()}
    for prefix, selection in (("memory", _SHIPPED), ("all_levels_memory", _ALL)):
        found = details[selection]["memory_mb"]
        for which in ("smallest", "largest"):
            pairs = zip(found["ours"][which], found["all sessions open"]["largest"], strict=True)
            over[f"{prefix}_{which}_active"] = [ours / together for ours, together in pairs]
    figures = {key: median(found) for key, found in over.items()} | {"switch_ms": switches["ours"]["median"]}
    return {
        "rows": rows,
        "figures": figures,
        "spread": {key: range_of(found) for key, found in over.items()},
        "details": details,
        "notes": [
            "Levels of quarter-width VGG-16 on CIFAR-10, pruned. A switch is timed until the first "
            "answer to one image, one thread, all ways in turn; in brackets the range. Files are in the page "
            "cache. Memory is resident above imports and an idle onnxruntime, after all variants have served twice, "
            f"each way in {BLOCKS} processes of its own, between the switches; peak includes theirs. Ours imports "
            f"{median(memory['ours']['imports']):.1f} MB of Python modules beside onnxruntime.",
            "One network, weights exchanged, stands in for Dynamic-OFA's way: one session of the full-size network "
            "(BatchNorm fused) takes its weights as inputs; each variant's weights lie in memory deflated and a switch "
            "inflates them over the ones in use, zeros and all. Unlike the real one it slices no channels out, so "
            "every variant takes the time of the dense network or more (first answer in the table).",
            f"Of the memory of all sessions open, the {len(chosen)} variants that `pack` keeps need "
            f"{figures['memory_smallest_active']:.2f} with the smallest active and "
            f"{figures['memory_largest_active']:.2f} with the largest; all {len(shown['names'])} levels of one "
            "training, of which the smallest keeps over a third of the parameters, "
            f"{figures['all_levels_memory_smallest_active']:.2f} and "
            f"{figures['all_levels_memory_largest_active']:.2f}. What the same open sessions take differs by a fifth "
            "and more from process to process. They have nothing to do at a switch. The least memory for all levels "
            f"takes {least} ({median(memory[least]['largest']):.1f} MB, "
            f"ours {median(memory['ours']['largest']):.1f}). The picture and switch_over are of all levels.",
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
    fused = {name: fold_batch_norm(sparse[name]) for name in names}
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


Memory = Mapping[str, Sequence[float]]  # megabytes of every process, by what they are of


def _measured(request: Mapping[str, Any], file: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Memory]]:
    """Return by way the milliseconds of switches, over all variants, and the memory, measured in turn."""
    feed, names = feed_of(request), request["names"]
    ways = {way: make(request) for way, make in WAYS.items()}
    expected: dict[str, Any] = {}
    _visit(ways, names, feed, expected)  # warms up: graphs optimised for the device, files in the page cache
    visits, children = [], []
    for block in range(BLOCKS):
        children.append({way: _in_child(way, file) for way in WAYS})
        for visit in range(VISITS):
            order = names if (block + visit) % 2 else names[::-1]
            visits.append(_visit(ways, order, feed, expected))
    switching = {way: ([one[way][0] for one in visits], [one[way][1] for one in visits]) for way in ways}
    memory = {way: {key: [one[way][key] for one in children] for key in children[0][way]} for way in WAYS}
    return {way: _summary(*switching[way], switching["ours"][0]) for way in ways}, memory


def _visit(
    ways: Mapping[str, Any], names: Sequence[str], feed: dict[str, Any], expected: dict[str, Any]
) -> dict[str, tuple[list[float], list[float]]]:
    """Return by way the milliseconds until the first answer of every variant, and of an answer after it."""
    found: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
    for name in names:
        for way, ready in ways.items():
            times = [time.perf_counter()]
            ready.switch(name)
            answer = ready.run(feed)
            times.append(time.perf_counter())
            ready.run(feed)
            times.append(time.perf_counter())
            found[way][0].append((times[1] - times[0]) * 1e3)
            found[way][1].append((times[2] - times[1]) * 1e3)
            wanted = expected.setdefault(name, answer)
            assert np.abs(answer - wanted).max() <= 1e-3 * np.abs(wanted).max(), (way, name)
    return found


def _summary(first: list[list[float]], later: list[list[float]], ours: list[list[float]]) -> dict[str, Any]:
    """Of each visit the mean over the variants, and ours over it; the medians stand for all visits."""
    means = np.mean(first, axis=1)
    return {
        "visits": means.tolist(),
        "median": float(np.median(means)),
        "ours_over": (np.mean(ours, axis=1) / means).tolist(),
        "answer_ms": median(float(np.mean(visit)) for visit in later),
    }


def _in_child(way: str, request: Path) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.support.ways", way, str(request)]
    found: dict[str, float] = json.loads(
        subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return found


def _row(
    selection: str,
    count: int,
    way: str,
    switches: Mapping[str, Any],
    memory: Memory,
    ours: Memory,
) -> dict[str, Any]:
    smallest, largest = median(memory["smallest"]), median(memory["largest"])
    return {
        "variants": f"{selection} ({count})",
        "way": way,
        "smallest active, MB": in_words(memory["smallest"]),
        "largest active, MB": in_words(memory["largest"]),
        "over ours": f"{smallest / median(ours['smallest']):.2f}–{largest / median(ours['largest']):.2f}",
        "peak, MB": median(memory["peak"]),
        "switch and first answer, ms": in_words(switches["visits"]),
        "next answer, ms": switches["answer_ms"],
    }


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    shown = result["details"][_ALL]
    memory, switching = figure.subplots(1, 2)
    ways = list(reversed(WAYS))
    for place, way in enumerate(ways):
        found = shown["memory_mb"][way]
        low, high = sorted(median(found[which]) for which in ("smallest", "largest"))
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
