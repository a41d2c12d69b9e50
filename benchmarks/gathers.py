"""Residual networks whose blocks read or make few of the stream's channels: with Gathers beside without."""

import itertools
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.support.results import in_words, range_of
from benchmarks.widths import COLOURS, Chain, call_of
from onnx_shift.onnx_pruner import target
from onnx_shift.onnx_pruner.prune import open_source, prune_opened

TITLE = "Blocks that read or make few of a stream's channels: with a Gather beside all channels"
MINUTES = 0.5
BY_NAME_ALONE = True

BLOCKS = 3
INSIDE = 64  # channels between the two convolutions of a block
KERNELS, SIZES, STREAMS = (3, 1), (56, 28, 14, 7), (64, 256)
MOST_POSITIONS = 1 << 18  # times channels: larger streams before 3x3 convolutions take too long
SHARES = {"a quarter": 0.25, "half": 0.5, "three quarters": 0.75}
ROUNDS = 20


def measure(work: Path) -> dict[str, Any]:
    del work
    fit = target.fit_of("this")
    if fit.table is None or not fit.table.knows_gathers:
        return {"rows": [], "figures": {}, "notes": [f"Gathers were not measured on {target.this_target()}."]}
    without = {
        kind: {name: sizes for name, sizes in kernels.items() if name != target.GATHER}
        for kind, kernels in fit.table.times_ms.items()
    }
    fits = (replace(fit, table=replace(fit.table, times_ms=without)), fit)
    rows: list[dict[str, Any]] = []
    found: dict[str, list[float]] = {}
    for kernel, size, stream in itertools.product(KERNELS, SIZES, STREAMS):
        if kernel > 1 and stream * size**2 > MOST_POSITIONS:
            continue
        rows.append({"kernel": f"{kernel}x{kernel}", "pixels per side": size, "channels": stream})
        for reads, (words, share) in itertools.product((True, False), SHARES.items()):
            opened = open_source(build(kernel, size, stream, round(share * stream), reads))
            whole, narrow = (prune_opened(opened, one) for one in fits)
            ratios = _ratios(whole.model, narrow.model) if narrow.report.narrowed else []
            rows[-1][f"{words} {'read' if reads else 'made'}"] = in_words(_middle(ratios)) if ratios else "–"
            if ratios:
                found.setdefault(f"{kernel}x{kernel}", []).append(statistics.median(ratios))
    every = [ratio for ratios in found.values() for ratio in ratios]
    figures = {"networks": len(every), "worst": round(max(every), 3)}
    figures |= {f"median_{kernel}": round(statistics.median(ratios), 3) for kernel, ratios in found.items()}
    note = (
        "Processor time of one sample with Gathers over that without, plain onnxruntime, one thread, "
        f"{target.this_target()}: median of {ROUNDS} rounds in turn and, in brackets, the middle half of them; – where "
        f"none is put in. {BLOCKS} blocks of a convolution of the kernel and a 1x1 one, {INSIDE} channels between "
        "them: the first reads, or the last makes, the given share of the stream's channels."
    )
    spread = {f"median_{kernel}": range_of(ratios) for kernel, ratios in found.items()}
    return {"rows": rows, "figures": figures, "spread": spread, "notes": [note]}


def _middle(ratios: list[float]) -> list[float]:
    return sorted(ratios)[len(ratios) // 4 : -(len(ratios) // 4)]


def _ratios(whole: onnx.ModelProto, narrow: onnx.ModelProto) -> list[float]:
    calls = [call_of(model) for model in (whole, narrow)]
    taken: list[list[float]] = []
    for _ in range(ROUNDS):
        taken.append([])
        for call in calls:
            call()  # what the other left in the caches is gone
            start = time.thread_time()
            call()
            taken[-1].append(time.thread_time() - start)
    return [after / before for before, after in taken]


def build(kernel: int, size: int, stream: int, used: int, reads: bool) -> onnx.ModelProto:
    """A residual network of which each block reads, or makes, channels drawn at random for it."""
    chain = Chain()

    def layer(name: str, outputs: int, inputs: int, taps: int, *without: np.ndarray) -> str:
        array = chain.rng.standard_normal((outputs, inputs, taps, taps)) / np.sqrt(inputs * taps**2)
        for axis, channels in enumerate(without):
            np.moveaxis(array, axis, 0)[channels] = 0
        weight = chain.constant(array.astype(np.float32))
        return chain.add("Conv", [name, weight], kernel_shape=[taps] * 2, pads=[taps // 2] * 4)

    none = np.arange(0)
    name = chain.add("Relu", [layer("x", stream, COLOURS, 3)])
    for _ in range(BLOCKS):
        unused = chain.rng.permutation(stream)[used:]
        inner = layer(name, INSIDE, stream, kernel if reads else 1, none, unused if reads else none)
        end = layer(chain.add("Relu", [inner]), stream, INSIDE, 1 if reads else kernel, none if reads else unused)
        name = chain.add("Relu", [chain.add("Add", [name, end])])
    return chain.finish(name, size, stream)
