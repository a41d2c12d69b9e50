"""How many requests per second each variant serves: learnt while it is active, and guessed from the one that is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_shift.runtime.load import Load
    from onnx_shift.runtime.portfolio import Variant

_KEPT = 0.98  # share of the past kept with each request: it reaches back about fifty of them
_KEPT_BESIDE = 0.99  # the same of a variant that is not active, with each request that another answers
_GUESS = 10  # what a guess is worth, in requests
_WOKEN = 0.1  # what the first request after a pause is worth: it takes longer than it would at a high load
_ENOUGH_BUSY_S = 0.02


class Capacities:
    """Requests per second that each variant answers while it is busy all the time.

    The first request after a pause counts little: it takes longer, and at the loads that matter there are no pauses.
    Of a variant that is not active, what was seen of it and what it costs beside the active one count together. What
    was seen fades: a device that was slow for a moment must not count as a variant that is slow.
    """

    def __init__(self) -> None:
        self._served: dict[str, tuple[float, float]] = {}  # completed, busy seconds
        self._last: Variant | None = None

    def learn(self, load: Load) -> None:
        """Take in what the active variant served since the last look, unless it was another one in part."""
        name, last = load.active.name, self._last
        self._last = load.active
        if last is None:
            return
        if name != last.name:
            self._served[name] = self._expected(load.active, last)
            return
        worth = load.completed - (1 - _WOKEN) * load.woken
        for other, (completed, busy_s) in self._served.items():
            kept = (_KEPT if other == name else _KEPT_BESIDE) ** worth
            self._served[other] = kept * completed, kept * busy_s
        completed, busy_s = self._served.get(name, (0.0, 0.0))
        self._served[name] = completed + worth, busy_s + load.busy_s - (1 - _WOKEN) * load.woken_s

    def of(self, variant: Variant, active: Variant) -> float:
        """Return requests per second, infinite where nothing is known yet."""
        if variant.name == active.name:
            return self._seen(variant)
        completed, busy_s = self._expected(variant, active)
        return completed / busy_s if busy_s else float("inf")

    def _expected(self, variant: Variant, active: Variant) -> tuple[float, float]:
        """Return what was seen of `variant` while it was active, and as much as a guess is worth."""
        completed, busy_s = self._served.get(variant.name, (0.0, 0.0))
        at_work = self._seen(active)
        if math.isinf(at_work):
            return completed, busy_s
        return completed + _GUESS, busy_s + _GUESS / (at_work * _cost_ratio(active, variant))

    def _seen(self, variant: Variant) -> float:
        completed, busy_s = self._served.get(variant.name, (0.0, 0.0))
        if not completed or busy_s <= _ENOUGH_BUSY_S:
            return float("inf")
        return (completed + 0.5) / busy_s  # on average, one is half done


def _cost_ratio(one: Variant, other: Variant) -> float:
    """Return how many times the cost of `other` that of `one` is: by latency, else arithmetic, else size."""
    for cost in (profiled_latency_ms, _macs):
        ours, theirs = cost(one), cost(other)
        if ours and theirs:
            return ours / theirs
    return math.sqrt(max(one.nonzero_bytes, 1) / max(other.nonzero_bytes, 1))


def profiled_latency_ms(variant: Variant) -> float | None:
    """Return the median latency of one request, as the variant's profile states it; None where it states none."""
    try:
        return float(variant.metadata["latency_ms"]["1"]["p50"])
    except (KeyError, TypeError, ValueError):
        return None


def _macs(variant: Variant) -> float | None:
    macs = variant.metadata.get("macs")
    return float(macs) if isinstance(macs, int | float) else None
