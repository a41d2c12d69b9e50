"""Latency of pruned networks beside their sparse originals, over the zoo."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from onnx_shift.onnx_pruner import prune
from onnx_shift.runtime import kernels
from zoo import classifiers, handbuilt, tasks, zeros
from zoo.export import export
from zoo.judge import feeds

TITLE = "Never slower: latency of pruned networks beside the sparse ones, 111 architectures"
MINUTES = 3

ROUNDS = 30
#: Where its weights lie in memory makes one session of a network a few per cent faster than the next.
SESSIONS = 3
#: A round takes each session this long at least, so that short runs are timed in bundles.
SECONDS = 0.004
INJECTIONS = {"scattered": zeros.inject, "aligned": zeros.inject_aligned}


def measure(work: Path) -> dict[str, Any]:
    del work
    families = {**classifiers.FAMILIES, **tasks.FAMILIES}
    dense = {name: export(build) for name, build in families.items()}
    dense |= {name: build() for name, build in handbuilt.NETWORKS.items()}
    rows: list[dict[str, Any]] = []
    compiled: list[tuple[str, float, float]] = []  # networks that kernels run in part: time over plain, and its spread
    for name, model in dense.items():
        for injection, inject in INJECTIONS.items():
            sparse = inject(model, 0)
            pruned = prune(sparse, verify=False).model
            ratio, spread, milliseconds = _compare(sparse, pruned)
            fast = _compiled(sparse)
            if fast is not None:
                compiled.append((f"{name} ({injection})", *_compare(sparse, fast)[:2]))
            rows.append(
                {
                    "architecture": name,
                    "zeros": injection,
                    "parameters left": zeros.parameters(pruned) / zeros.parameters(sparse),
                    "sparse, ms": milliseconds,
                    "speed-up": 1 / ratio,
                    "spread": spread,
                }
            )
    rows.sort(key=lambda row: row["speed-up"])
    spread = statistics.quantiles((row["spread"] for row in rows), n=20)[-1]
    slower = [row for row in rows if 1 / row["speed-up"] > 1 + max(spread, row["spread"])]
    speedups = [row["speed-up"] for row in rows]
    slower_compiled = [name for name, ratio, own in compiled if ratio > 1 + max(spread, own)]
    figures = {
        "networks": len(rows),
        "slower": len(slower),
        "median_speedup": round(statistics.median(speedups), 3),
        "worst_speedup": round(speedups[0], 3),
        "spread": round(spread, 3),
        "compiled": len(compiled),
        "compiled_slower": len(slower_compiled),
    }
    notes = [
        "onnxruntime on the CPU, all optimisations, one thread, one sample, channels kept at multiples of 4 (the "
        f"default). Medians over {ROUNDS} rounds in which {SESSIONS} sessions of the sparse network and as many of the "
        "pruned one take turns; the best of each is compared. The spread is how far sessions of the same network "
        "differ; slower means slower by more than its own spread and the 95th percentile of all "
        f"({spread:.1%}). The rows are the ten slowest and the ten fastest.",
        f"Compiled for sparse kernels, {len(compiled)} of the sparse networks differ from plain onnxruntime; "
        f"slower by more than the spread: {', '.join(slower_compiled) or 'none'}.",
        "The networks are miniatures of a few microseconds to a millisecond: calling the kernels takes most of it.",
    ]
    if slower:
        notes.append("Slower: " + ", ".join(f"{row['architecture']} ({row['zeros']})" for row in slower) + ".")
    return {"rows": [_rounded(row) for row in rows[:10] + rows[-10:]], "figures": figures, "notes": notes}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def _compare(sparse: onnx.ModelProto, pruned: onnx.ModelProto) -> tuple[float, float, float]:
    """Return pruned over sparse, how far sessions of the same network differ, and the sparse one's milliseconds."""
    sessions = [_session(model) for model in (sparse, pruned) * SESSIONS]
    fed = feeds(sessions[0], 0, 1, 1, 16)
    once = min(_seconds(sessions[0], fed, 1) for _ in range(5))
    count = max(1, int(SECONDS / once))
    taken: list[list[float]] = [[] for _ in sessions]
    for turn in range(ROUNDS + 2):
        for k in np.roll(range(len(sessions)), turn):
            taken[k].append(_seconds(sessions[k], fed, count))
    medians = [statistics.median(times[2:]) for times in taken]
    before, after = medians[::2], medians[1::2]
    spread = max(max(before) / min(before), max(after) / min(after)) - 1
    return min(after) / min(before), spread, min(before) * 1e3


def _compiled(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The network with layers on our kernels; None where `compile_model` leaves it as it is."""
    if not kernels.available():
        return None
    fed = feeds(_session(model), 0, 1, 1, 16)
    choice = kernels.compile_model(model, feeds=fed, make_options=_options)
    return choice.model if choice.changed else None


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = _options()
    if kernels.available():
        kernels.register(options)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _seconds(session: onnxruntime.InferenceSession, fed: dict[str, np.ndarray], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        session.run(None, fed)
    return (time.perf_counter() - start) / count
