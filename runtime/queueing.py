"""A device on paper, one queue, one server, a fixed time per request and variant: what any policy makes of a load
there, and the clairvoyant one, which `replay` measures others by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.policy import place_of
from onnx_shift.runtime.portfolio import Variant

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ServedTrace:
    """Requests in the order in which they came: when (seconds from the start), how long until their answer,
    and which variant gave it (its index by size; -1: it failed). `switches` are (seconds, index after).
    """

    arrived_s: Floats
    latency_ms: Floats
    variant: npt.NDArray[np.intp]
    switches: tuple[tuple[float, int], ...]

    def within(self, objective_ms: float) -> int:
        """Return how many requests were answered within the objective."""
        return int(np.count_nonzero((self.latency_ms <= objective_ms) & (self.variant >= 0)))

    def accuracy(self, accuracies: Sequence[float]) -> float:
        """Return the accuracy of the mean answer, failed requests counting as wrong."""
        if not self.variant.size:
            return 0.0
        return float(np.array([*accuracies, 0.0])[self.variant].mean())

    def served_accuracy(self, accuracies: Sequence[float]) -> tuple[float, float] | None:
        """Return the mean accuracy of what was answered, and how far the least accurate of it lies below the most
        accurate variant; None where nothing was.
        """
        served = np.array(accuracies)[self.variant[self.variant >= 0]]
        return (float(served.mean()), float(max(accuracies) - served.min())) if served.size else None


def finish_times(arrived_s: Floats, free_s: float, service_s: float) -> Floats:
    """Return when each request is answered by a server that is free from `free_s` on, first come, first
    served.
    """
    positions = np.arange(arrived_s.size)
    earliest = np.maximum(arrived_s, free_s) - positions * service_s
    finished: Floats = np.maximum.accumulate(earliest) + (positions + 1) * service_s
    return finished


def clairvoyant(
    arrived_s: Floats,
    interval_s: float,
    service_s: Sequence[float],
    accuracies: Sequence[float],
    objective_ms: float,
) -> ServedTrace:
    """Return what the best choice for each interval gives, its requests known beforehand and switches free.

    Taken is the most accurate variant that answers as many requests of the interval within the objective as
    the smallest would, to one in a hundred, and leaves no queue beyond half the objective to the next
    interval.
    """
    objective_s = objective_ms / 1e3
    order = sorted(range(len(service_s)), key=lambda index: -accuracies[index])
    finished, chosen, switches = np.empty_like(arrived_s), np.zeros(arrived_s.size, np.intp), []
    free_s, active = 0.0, -1
    for start_s in np.arange(0.0, arrived_s[-1] + interval_s if arrived_s.size else 0.0, interval_s):
        rows = slice(*np.searchsorted(arrived_s, [start_s, start_s + interval_s]))
        came_s = arrived_s[rows]
        if not came_s.size:
            continue
        best = finish_times(came_s, free_s, service_s[0])
        needed = 0.99 * np.count_nonzero(best - came_s <= objective_s)
        pick = 0
        for index in order:
            done_s = finish_times(came_s, free_s, service_s[index])
            answered = np.count_nonzero(done_s - came_s <= objective_s)
            if answered >= needed and done_s[-1] - (start_s + interval_s) <= objective_s / 2:
                best, pick = done_s, index
                break
        finished[rows], chosen[rows], free_s = best, pick, float(best[-1])
        if pick != active:
            active = pick
            switches.append((float(start_s), pick))
    return ServedTrace(arrived_s, (finished - arrived_s) * 1e3, chosen, tuple(switches[1:]))


def always(arrived_s: Floats, service_s: float, variant: int) -> ServedTrace:
    """Return what happens when one variant serves all the time."""
    finished = finish_times(arrived_s, 0.0, service_s)
    return ServedTrace(arrived_s, (finished - arrived_s) * 1e3, np.full(arrived_s.size, variant), ())


def simulate(
    arrived_s: Floats,
    duration_s: float,
    variants: Sequence[Variant],
    service_s: Sequence[float],
    policy: Policy,
    *,
    switch_s: Sequence[float],
    slowness: Callable[[float], float] = lambda time_s: 1.0,
    wake_s: float = 0.0,
) -> ServedTrace:
    """Return what `policy` makes of the requests. A switch takes `switch_s`, by variant, beside the one that serves;
    `slowness` says how many times as long as usual a request takes that begins at a time, and the first after a
    pause takes `wake_s` more.
    """
    active, target, ready_s = len(variants) // 2, None, 0.0
    finished, chosen = np.empty_like(arrived_s), np.zeros(arrived_s.size, np.intp)
    woken_s = np.zeros_like(arrived_s)
    switches: list[tuple[float, int]] = []
    free_s, next_row, looked_s, were_answered, came_before = 0.0, 0, 0.0, 0, 0
    while looked_s < duration_s:
        now = looked_s + policy.interval_s
        busy_s = max(0.0, min(free_s, now) - looked_s)
        while next_row < arrived_s.size and max(free_s, arrived_s[next_row]) < now:
            began_s = max(free_s, float(arrived_s[next_row]))
            if target is not None and began_s >= ready_s:
                active, target = target, None
                switches.append((ready_s, active))
            paused = began_s > free_s + 1e-3
            free_s = began_s + (service_s[active] + paused * wake_s) * slowness(began_s)
            woken_s[next_row] = paused * (free_s - began_s)
            busy_s += min(free_s, now) - began_s
            finished[next_row], chosen[next_row] = free_s, active
            next_row += 1
        if target is not None and now >= ready_s:
            active, target = target, None
            switches.append((ready_s, active))
        came = int(np.searchsorted(arrived_s, now))
        answered = int(np.searchsorted(finished[:next_row], now))
        just = slice(were_answered, answered)
        load = Load(
            time_s=now,
            interval_s=policy.interval_s,
            arrived=came - came_before,
            completed=answered - were_answered,
            waiting=came - answered,
            busy_s=busy_s,
            latencies_ms=tuple(1e3 * (finished[just] - arrived_s[just])),
            active=variants[active],
            variants=tuple(variants),
            woken=int(np.count_nonzero(woken_s[just])),
            woken_s=float(woken_s[just].sum()),
        )
        wanted = place_of(policy.decide(load) if target is None else None, load)
        if wanted != active:
            target, ready_s = wanted, now + switch_s[wanted]
        looked_s, were_answered, came_before = now, answered, came
    while next_row < arrived_s.size:
        free_s = max(free_s, float(arrived_s[next_row])) + service_s[active]
        finished[next_row], chosen[next_row] = free_s, active
        next_row += 1
    return ServedTrace(arrived_s, (finished - arrived_s) * 1e3, chosen, tuple(switches))
