"""On an NVIDIA GPU: latency of VGG-16 of full width (the paper's Fig. 6), and what `switching` measures on the CPU."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from benchmarks import full_size, latency_and_size
from benchmarks.latency_and_size import compare_forms, row
from benchmarks.support.results import range_of, shown_range
from benchmarks.switching import part
from benchmarks.switching_models import resnet_portfolio, vgg_portfolio
from onnx_shift.portfolio.latency import compare_latency
from onnx_shift.portfolio.sessions import random_inputs, session_options
from onnx_shift.runtime.errors import ProviderError
from onnx_shift.runtime.session import choose_providers

TITLE = "On an NVIDIA GPU: latency, correctness and switching under the CUDA execution provider"
MINUTES = 3
PICTURE_INCHES = latency_and_size.PICTURE_INCHES

CUDA = "CUDAExecutionProvider"
_BATCHES = (1, 128)
_SECONDS = 0.2


def missing() -> str | None:
    """Return why this cannot be measured here, if so."""
    try:
        choose_providers([CUDA])
    except ProviderError as error:
        return str(error)
    return full_size.missing()


def measure(work: Path) -> dict[str, Any]:
    vgg, resnet = vgg_portfolio(work), resnet_portfolio(work)
    costs = {"vgg": part("cost", work, vgg, CUDA), "resnet50": part("cost", work, resnet, CUDA)}
    stall, memory = part("stall", work, vgg, CUDA), part("memory", work, vgg, CUDA)
    everything_open = part("everything-open", work, vgg, CUDA)["held_mb"]
    searches = _searches([vgg[1][0], resnet[1][0]])
    details = compare_forms(full_size.levels_measured(), work, CUDA, _BATCHES, seconds=_SECONDS)
    ratios = {
        f"{model}_{name}": cost[name] for model, cost in costs.items() for name in ("cost_ratio", "build_ratio")
    } | {"stall_added_ms": stall["added_ms"]}
    return {
        "rows": [row(entry) for entry in details],
        "tables": {
            "Switching": [line for cost in costs.values() for line in cost["rows"]],
            "Convolutions chosen by heuristics, our default, or by trying all, onnxruntime's": searches,
        },
        "figures": {
            **full_size.figures_of(details),
            **{name: median(found) for name, found in ratios.items()},
            "failed_or_wrong": stall["failed_or_wrong"],
            "memory_smallest_active": memory["smallest_active_mb"] / everything_open,
            "memory_largest_active": memory["largest_active_mb"] / everything_open,
        },
        "spread": full_size.spread_of(details) | {name: range_of(found) for name, found in ratios.items()},
        "notes": [
            "The levels of VGG-16 of full width that `full_size` measures on the CPU; answers compared in whole "
            "float32 (use_tf32=0) on all test images. Latency with onnxruntime's defaults, images copied to the card "
            "and scores back. Launching kernels takes most of batch 1.",
            "Switching: the portfolios, ways and windows of `switching`; memory is the device's.",
        ],
        "details": {
            "forms": details,
            "cost": costs,
            "stall": stall,
            "memory": memory,
            "everything_open_mb": everything_open,
        },
    }


def _searches(models: list[Path]) -> list[dict[str, Any]]:
    """Return the latency of each model with convolutions chosen by heuristics over that with those found by trying."""
    import onnxruntime

    def call(model: Path, search: str, batch: int) -> Callable[[], object]:
        options = {"cudnn_conv_algo_search": search}
        session = onnxruntime.InferenceSession(str(model), session_options(1), providers=[(CUDA, options)])
        feed = random_inputs(session, batch, 0)
        return lambda: session.run(None, feed)

    rows = []
    for model in models:
        for batch in (1, 16):
            calls = {search: call(model, search, batch) for search in ("EXHAUSTIVE", "HEURISTIC")}
            found = compare_latency(calls, "EXHAUSTIVE", seconds=0.5, attempts=2)
            speedup = found.speedup["HEURISTIC"]
            rows.append(
                {
                    "model": model.stem,
                    "batch": batch,
                    "tried, ms": found.latency["EXHAUSTIVE"].p50_ms,
                    "heuristics, ms": found.latency["HEURISTIC"].p50_ms,
                    "speed-up": shown_range(speedup.median, speedup.low, speedup.high),
                }
            )
    return rows


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    latency_and_size.draw({"details": result["details"]["forms"]}, figure)
