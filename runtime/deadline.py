"""A policy that uses all of the objective: every request in time, by the most accurate variant that can."""

from collections.abc import Iterator
from dataclasses import dataclass

from onnx_shift.runtime.load import Load
from onnx_shift.runtime.policy import LatencyObjective, check_numbers, worst_first


@dataclass(kw_only=True)
class Deadline(LatencyObjective):
    """Answers within `p95_ms` by the most accurate variant by which all that wait are still in time, first come, first
    served: one that has waited `w` and is the k-th to be answered needs w + k answers. Where none is, by the fastest.

    How long each has waited follows from how many came between looks. `share` of the objective is used, the rest is for
    what a switch takes. Unlike `LatencyObjective` it lets requests wait as long as they may, and so serves more of them
    by better variants; for that it switches more often. It knows a variant's capacity by what it saw of it.
    """

    share: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "share")

    def decide(self, load: Load) -> str | None:
        """Return where to go, or None; see the class."""
        self._listen(load)
        self._capacities.learn(load)
        self._remember(load, self.p95_ms / 1e3)
        self._is_too_slow(load, load.waiting / self._most_waiting(self._capacities.of(load.active, load.active)))
        queue = list(self._queue(load))
        for variant in reversed(worst_first(load.variants)):
            takes_ms = 1e3 / self._capacities.of(variant, load.active)
            in_time = all(waited_ms + place * takes_ms <= self.share * self.p95_ms for waited_ms, place in queue)
            if in_time and self._may_serve(variant, load):
                break
        else:
            variant = self._last_resort(load)
        return None if variant is load.active else variant.name

    def _queue(self, load: Load) -> Iterator[tuple[float, int]]:
        """Yield of those that came between two looks, the latest first, how many milliseconds the first of them has
        waited, and the place of the last in the queue.
        """
        place = load.waiting
        for look in reversed(self._looks):
            if place <= 0:
                return
            yield (load.time_s - look.time_s + look.interval_s) * 1e3, place
            place -= look.arrived
        if place > 0:  # longer ago than is remembered
            yield self.p95_ms, place
