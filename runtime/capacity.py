"""How many requests per second each variant serves, learnt while it is active and guessed before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_shift.runtime.policy import Load
    from onnx_shift.runtime.portfolio import Variant

_KEPT = 0.98  # share of the past kept with each request: it reaches back about fifty of them
_ENOUGH_BUSY_S = 0.02


class Capacities:
    """Requests per second that each variant answers while it is busy all the time."""

    def __init__(self) -> None:
        self._served: dict[str, tuple[float, float]] = {}  # completed, busy seconds
        self._last: str | None = None

    def learn(self, load: Load) -> None:
        """Take in what the active variant served since the last look, unless it was another one in part."""
        name = load.active.name
        if name == self._last:
            completed, busy_s = self._served.get(name, (0.0, 0.0))
            kept = _KEPT**load.completed
            self._served[name] = kept * completed + load.completed, kept * busy_s + load.busy_s
        self._last = name

    def of(self, variant: Variant, active: Variant) -> float:
        """Return requests per second; for a variant never seen at work by what it costs beside one that was."""
        known = {
            name: (completed + 0.5) / busy_s  # on average, one is half done
            for name, (completed, busy_s) in self._served.items()
            if completed and busy_s > _ENOUGH_BUSY_S
        }
        if variant.name in known:
            return known[variant.name]
        if active.name in known:
            return known[active.name] * _cost_ratio(active, variant)
        return float("inf")


def _cost_ratio(one: Variant, other: Variant) -> float:
    """Return how many times the cost of `other` that of `one` is: by latency, else arithmetic, else size."""
    for cost in (_latency_ms, _macs):
        ours, theirs = cost(one), cost(other)
        if ours and theirs:
            return ours / theirs
    return math.sqrt(max(one.weight_bytes, 1) / max(other.weight_bytes, 1))


def _latency_ms(variant: Variant) -> float | None:
    try:
        return float(variant.metadata["latency_ms"]["1"]["p50"])
    except (KeyError, TypeError, ValueError):
        return None


def _macs(variant: Variant) -> float | None:
    macs = variant.metadata.get("macs")
    return float(macs) if isinstance(macs, int | float) else None
