"""Gather what a run's folder or a portfolio holds, for the report."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import read_bytes
from onnx_shift.page import Evidence, Layer, Pruning


def gather_evidence(source: Path) -> Evidence:
    """Return what there is to show of `source`, a folder with models and profile, or a portfolio.

    A folder is searched for profile.json, replay.json, reports of `prune --report`, and portfolio.zip; one
    level of folders below it too. Raises OnnxShiftError where there is nothing to show.
    """
    if source.is_dir():
        return _of_folder(source)
    return _of_portfolio(source)


def _of_folder(folder: Path) -> Evidence:
    found = [_read(path) for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])]
    profile = next((content for content in found if "variants" in content and "machine" in content), None)
    replay = next((content for content in found if "runs" in content), None)
    prunings = {
        Path(content["source"]).stem: _pruning(content)
        for content in found
        if "parameters_after_align_1" in content
    }
    if profile is None and not prunings and replay is None:
        raise OnnxShiftError(
            f"{folder}: holds no profile, pruning report or replay; see onnx-shift profile --help"
        )
    missing = []
    dropped: Mapping[str, str] = {}
    optimal: Sequence[str] = ()
    if profile is None:
        missing.append(
            f"accuracy, latency and size: onnx-shift profile MODEL.onnx ... -o {folder}/profile.json"
        )
    else:
        dropped, optimal = _selection(profile)
    if not prunings:
        missing.append(
            "channels per layer: onnx-shift prune SPARSE.onnx --report FILE.json, into this folder"
        )
    if replay is None:
        missing.append(f"switching under load: onnx-shift replay PORTFOLIO.zip -o {folder}")
    return Evidence(
        f"Portfolio in {folder.resolve().name}", profile, dropped, optimal, prunings, replay, missing
    )


def _of_portfolio(path: Path) -> Evidence:
    from onnx_shift.runtime import Portfolio

    portfolio = Portfolio.open(path)
    measured = {variant.name: dict(variant.metadata) for variant in portfolio}
    if not all("latency_ms" in entry for entry in measured.values()):
        raise OnnxShiftError(f"{path}: was packed without --profile, so there is nothing to show")
    profile = {"variants": measured}
    missing = "what was left out and why, channels per layer, switching under load: give the run's folder"
    return Evidence(f"Portfolio {path.name}", profile, missing=[missing], optimal=_selection(profile)[1])


def _selection(profile: Mapping[str, Any]) -> tuple[Mapping[str, str], Sequence[str]]:
    from onnx_shift.onnx_pruner.pareto import SelectionError, select

    try:
        selection = select(profile, list(profile["variants"]))
    except SelectionError:  # no accuracy was measured: nothing is chosen, all is shown
        return {}, ()
    return selection.dropped, selection.optimal


def _pruning(report: Mapping[str, Any]) -> Pruning:
    layers = [_layer(layer) for layer in report["layers"]]
    kept = [
        f"{entry['tensor']}: {len(entry['channels'])} channel(s), {entry['reason']}"
        for entry in report["kept"]
    ]
    return Pruning(layers, [*kept, *report["notes"]])


def _layer(layer: Mapping[str, Any]) -> Layer:
    axis = _output_axis(layer["op"], layer["before"], layer["parameters_before"])
    after = layer["after"]
    return Layer(layer["name"], layer["before"][axis], after[axis] if after else 0)


def _output_axis(operator: str, shape: Sequence[int], parameters: int) -> int:
    """Which axis of a weight counts output channels; a Gemm's weight may lie either way, its bias tells."""
    if operator == "Gemm" and shape[0] != shape[1] == parameters - math.prod(shape):
        return 1
    return {"ConvTranspose": 1, "MatMul": len(shape) - 1}.get(operator, 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
