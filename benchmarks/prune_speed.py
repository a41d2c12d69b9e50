"""How long pruning takes beside reading and writing the file (the paper's Fig. 7 states 0.12 s)."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx
import torch

from benchmarks.support.results import in_words, range_of
from onnx_shift.models.registry import build
from onnx_shift.onnx_pruner import prune
from zoo import zeros
from zoo.export import export

TITLE = "Seconds to prune, beside onnx.load and onnx.save of the same file"
MINUTES = 1.2

ROUNDS = 15
#: Model of the registry, classes and image size: a file of 102 MB and one of 59 MB.
MODELS = {"resnet50": (1000, 224), "vgg16": (10, 32)}
#: Share of every stream's channels that dies.
SHARES = {"half of the channels": 0.5, "few channels": 0.02}


def measure(work: Path) -> dict[str, Any]:
    rows, figures, spread = [], {}, {}
    for name, (classes, size) in MODELS.items():
        dense = _exported(name, classes, size)
        for what, share in SHARES.items():
            model = zeros.inject_aligned(dense, 0, share)
            path = work / f"{name}.onnx"
            onnx.save(model, path)
            report = prune(model, verify=False).report
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                pruning, copying = process.submit(_measure, path).result()
            ratios = [a / b for a, b in zip(pruning, copying, strict=True)]
            key = f"{name}_{'half' if share == 0.5 else 'few'}"
            figures[key] = round(statistics.median(ratios), 3)
            figures[f"{key}_seconds"] = round(statistics.median(pruning), 4)
            spread[key] = range_of(ratios)
            rows.append(
                {
                    "model": name,
                    "MB": round(path.stat().st_size / 1e6, 1),
                    "removed": what,
                    "parameters left": round(report.parameters_after / report.parameters_before, 3),
                    "prune, s": round(statistics.median(pruning), 3),
                    "load and save, s": round(statistics.median(copying), 3),
                    "ratio": in_words(ratios),
                }
            )
    notes = [
        f"From one ModelProto to a new one, verification excluded; medians of {ROUNDS} rounds in which pruning and "
        "onnx.load + onnx.save take turns, each row in a process of its own, as memory that earlier rows freed is "
        "cheaper to take again; the ratio is the median of the rounds' ratios, in brackets their range."
    ]
    return {"rows": rows, "figures": figures, "spread": spread, "notes": notes}


def _exported(name: str, classes: int, size: int) -> onnx.ModelProto:
    def model() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        return build(name, num_classes=classes, in_channels=3), (torch.randn(1, 3, size, size),)

    model.__name__ = name
    return export(model)


def _measure(path: Path) -> tuple[list[float], list[float]]:
    """Return the seconds of pruning and of copying over `ROUNDS` turns, the first turn left out."""
    model = onnx.load(path)
    calls = (lambda: prune(model, verify=False), lambda: _copy(path))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return seconds[0][1:], seconds[1][1:]


def _copy(path: Path) -> None:
    onnx.save(onnx.load(path), path.with_suffix(".copy.onnx"))
