"""A device on paper, one queue, one server, a fixed time per request and variant: what the clairvoyant policy
makes of a load, which `replay` measures others by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
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
) -> Run:
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
    return Run(arrived_s, (finished - arrived_s) * 1e3, chosen, tuple(switches[1:]))
