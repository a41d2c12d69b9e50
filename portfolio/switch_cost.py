"""What it costs to switch to each of several models, measured on a portfolio packed for the occasion.

A switch is timed as a device sees it from its second start on: the graph optimised for it is in the cache.
Inflating, building the session and one warm-up run are counted, each variant several times in turn.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from onnx_shift.portfolio.inputs import variant_name
from onnx_shift.portfolio.pack import PackError, pack
from onnx_shift.portfolio.sessions import session_options
from onnx_shift.runtime import ModelSwitcher, Portfolio

_VISITS = 5


@dataclass(frozen=True)
class SwitchCost:
    """Milliseconds until the variant serves (median), and the bytes of its copy that stays in memory."""

    switch_ms: float | None
    deflated_bytes: int


def measure_switches(models: Sequence[Path], *, providers: Sequence[str], threads: int) -> Mapping[str, SwitchCost]:
    """Return by name, in the order of a portfolio, what switching to each of `models` costs.

    A single model, and models whose inputs or outputs differ, are not switched between: `switch_ms` is None.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as name:
        folder = Path(name)
        together = folder / "portfolio.zip"
        try:
            pack(models, together)
        except PackError:
            return {variant_name(path): SwitchCost(None, _packed_alone(path, folder)) for path in models}
        portfolio = Portfolio.open(together)
        times = visit_all(portfolio, folder / "cache", providers, threads) if len(portfolio) > 1 else {}
        return {variant.name: SwitchCost(times.get(variant.name), variant.deflated_bytes) for variant in portfolio}


def visit_all(portfolio: Portfolio, cache: Path, providers: Sequence[str], threads: int) -> dict[str, float]:
    """Switch to every variant in turn, several times over, and return the median milliseconds of each."""
    costs: dict[str, list[float]] = {variant.name: [] for variant in portfolio}
    names = list(costs)
    with ModelSwitcher(portfolio, session_options(threads), providers=list(providers), cache=cache) as model:
        for visit in range(_VISITS + 1):
            for name in names if visit % 2 else reversed(names):
                record = model.switch(name)
                if visit and record.changed:  # the first visit optimises the graph for the device
                    costs[name].append(record.inflate_ms + record.build_ms + record.warmup_ms)
    return {name: median(found) for name, found in costs.items()}


def _packed_alone(path: Path, folder: Path) -> int:
    alone = folder / "alone.zip"
    pack([path], alone)
    return Portfolio.open(alone).variants[0].deflated_bytes
