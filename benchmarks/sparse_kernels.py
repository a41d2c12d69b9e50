"""Networks with scattered zeros, compiled for our kernels, beside plain onnxruntime over the same file."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.support.results import in_words, range_of
from benchmarks.support.sparse_models import mobilenet, resnet50, vgg16
from benchmarks.switching import part
from benchmarks.switching_models import scattered_portfolio
from onnx_shift.ort import CPU
from onnx_shift.runtime import kernels

TITLE = "Scattered zeros: sparse kernels beside plain onnxruntime"
MINUTES = 3.5

ROUNDS, CALLS = 15, 3
ENOUGH_S = 10.0
ZEROS = (0.8, 0.9, 0.95, 0.98)
CASES: dict[str, tuple[Callable[[float], onnx.ModelProto], int, int, int]] = {  # network, image size, batch, threads
    "vgg16_batch1": (vgg16, 32, 1, 1),
    "vgg16_batch16": (vgg16, 32, 16, 1),
    "resnet50_batch1": (resnet50, 224, 1, 1),
    "mobilenet_batch1": (mobilenet, 224, 1, 1),
}
LESS_ZEROS = (0.0, 0.5, 0.7)  # where nothing may be slower


def measure(work: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"largest_difference": 0.0}
    spread: dict[str, tuple[float, float]] = {}
    for name, (build, size, batch, threads) in CASES.items():
        row: dict[str, Any] = {"network": name}
        for zeros in (*LESS_ZEROS, *ZEROS):
            ratios, difference = _compare(build(zeros), size, batch, threads)
            key = f"{name}_{zeros * 100:.0f}"
            row[f"{zeros:.0%}"], figures[key], spread[key] = (
                in_words(ratios),
                statistics.median(ratios),
                range_of(ratios),
            )
            figures["largest_difference"] = max(figures["largest_difference"], difference)
        rows.append(row)
    slowest = min(figures[f"{name}_{zeros * 100:.0f}"] for name in CASES for zeros in LESS_ZEROS)
    figures["slowest_of_less_zeros"] = slowest
    if (os.cpu_count() or 1) > 1:
        for name, build, size in (("vgg16", vgg16, 32), ("resnet50", resnet50, 224)):
            ratios = _two_threads(build(0.95), size)
            figures[f"{name}_two_threads"] = statistics.median(ratios)
            spread[f"{name}_two_threads"] = range_of(ratios)
    return {"rows": rows, "figures": figures | _switching(work), "spread": spread, "notes": _notes()}


def _switching(work: Path) -> dict[str, float]:
    """What four VGG-16 with scattered zeros take in memory over all sessions open, and a switch over the plain way."""
    portfolio = scattered_portfolio(work)
    cost = part("cost", work, portfolio)["ratio_by_variant"]
    memory = part("memory", work, portfolio)
    everything_open = part("everything-open", work, portfolio)["held_mb"]
    return {
        "switch_ratio": round(max(cost[f"vgg-{zeros}"] for zeros in (90, 95, 98)), 3),
        "memory_smallest_active": round(memory["smallest_active_mb"] / everything_open, 3),
        "memory_largest_active": round(memory["largest_active_mb"] / everything_open, 3),
    }


def _notes() -> list[str]:
    wide = Path("/proc/cpuinfo").exists() and "avx512f" in Path("/proc/cpuinfo").read_text()
    return [
        "Random weights, the given share of zeros in every convolution but the first (MobileNet: in its 1x1 "
        "convolutions), BatchNorm folded; one thread, all optimisations on both sides. The compiled network is what "
        "`compile_model` chose by measuring; medians of rounds in which both sessions take turns, in brackets their "
        f"range; a turn is {CALLS} calls after one that is not counted, as a device goes on with the network that it "
        "serves. Processor: "
        f"{'with' if wide else 'without'} AVX-512.",
        "Memory and switch: a portfolio of four VGG-16 with 80, 90, 95 and 98 % zeros over all its sessions open, and, "
        "of those with 90 % and more the worst, until the first answer over zlib and InferenceSession.",
    ]


def _session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = _options(threads)
    kernels.register(options)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return options


def _compare(model: onnx.ModelProto, size: int, batch: int, threads: int) -> tuple[list[float], float]:
    """How much faster the compiled network is, in each round; and how far its answers lie from the dense ones."""
    compiled = kernels.compile_model(model, batch=batch, make_options=lambda: _options(threads)).model
    x = np.random.default_rng(1).standard_normal((batch, 3, size, size)).astype(np.float32)
    sessions = [_session(model, threads), _session(compiled, threads)]
    dense, sparse = (session.run(None, {"input": x})[0] for session in sessions)
    return _in_turn(sessions, x), float(np.abs(dense - sparse).max() / np.abs(dense).max())


def _two_threads(model: onnx.ModelProto, size: int) -> list[float]:
    """How much faster two threads are than one on the compiled network, in each round."""
    compiled = kernels.compile_model(model, make_options=lambda: _options(1)).model
    x = np.random.default_rng(1).standard_normal((1, 3, size, size)).astype(np.float32)
    return _in_turn([_session(compiled, threads) for threads in (1, 2)], x)


def _in_turn(sessions: list[onnxruntime.InferenceSession], x: np.ndarray) -> list[float]:
    """How much longer the first session takes than the second, in each round."""
    taken: list[list[float]] = [[] for _ in sessions]
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        for times, session in zip(taken, sessions, strict=True):
            session.run(None, {"input": x})  # finds the caches full of the other's weights
            start = time.perf_counter()
            for _ in range(CALLS):
                session.run(None, {"input": x})
            times.append(time.perf_counter() - start)
        if time.perf_counter() - begin > ENOUGH_S and len(taken[0]) >= 5:
            break
    return [first / second for first, second in zip(*taken, strict=True)]
