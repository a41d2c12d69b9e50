"""When to switch: policies look at the load and say where to go.

A policy of one's own is any object with `interval_s` and `decide`; see `load.Policy`.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from onnx_shift.runtime.capacity import Capacities
from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.memory import free_memory_bytes
from onnx_shift.runtime.portfolio import Variant, no_variant, stated_accuracies

_LONGEST_WINDOW_S = 20.0
_MAY_WAIT = 0.7  # of the objective
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class QueriesPerSecond:
    """The paper's policy: where queries per second fall behind, the next smaller variant; where less load comes, the
    next larger (its model switcher). Only neighbours, and no figure has to be known beforehand.

    Falling behind: more than `patience` requests wait that the active variant does not catch up with soon; or two
    thirds of that wait and more came lately than it serves. It steps up when fewer wait and the next larger variant
    promises to be busy for less than `high` of the time, at the load of the last `window_s` (longer where these
    brought fewer than about `window_requests`); that gap is the hysteresis. For `cooldown_s` after a step down
    there is no step up.
    """

    interval_s: float = 0.05
    window_s: float = 0.25
    window_requests: int = 80
    high: float = 0.95
    cooldown_s: float = 0.1
    patience: int = 6
    _capacities: Capacities = field(default_factory=Capacities, init=False, repr=False)
    _looks: deque[Load] = field(default_factory=deque, init=False, repr=False)
    _no_rise_before_s: float = field(default=float("-inf"), init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self, "interval_s", "window_s", "window_requests", "high", "patience")

    def decide(self, load: Load) -> str | None:
        """Return where to go, or None; see the class."""
        self._capacities.learn(load)
        capacity = self._capacities.of(load.active, load.active)
        window_s = max(self.window_s, min(self.window_requests / capacity, _LONGEST_WINDOW_S))
        self._remember(load, window_s)
        lately = self._rate(window_s / 2)
        needed = self._needed(lately, max(0, load.waiting - 1))
        queue = load.waiting / self._most_waiting(capacity)
        if load.active is not self._last_resort(load):
            behind = (queue > 1 and needed > capacity) or (queue > 2 / 3 and lately > capacity)
            if behind or self._is_too_slow(load, queue):
                self._no_rise_before_s = load.time_s + self.cooldown_s
                return self._fall(load, needed)
        if load.time_s < self._no_rise_before_s or queue > 2 / 3:
            return None
        return self._rise(load, self._rate(window_s))

    def _remember(self, load: Load, window_s: float) -> None:
        self._looks.append(load)
        while self._looks[0].time_s <= load.time_s - 2 * window_s:
            self._looks.popleft()

    def _rate(self, window_s: float) -> float:
        """Return the requests that came per second over the last `window_s`."""
        recent = [look for look in self._looks if look.time_s > self._looks[-1].time_s - window_s]
        seconds = sum(look.interval_s for look in recent)
        return sum(look.arrived for look in recent) / seconds if seconds > 0 else float("inf")

    def _keeps_up(self, variant: Variant, load: Load, rate: float) -> bool:
        return rate < self.high * self._capacities.of(variant, load.active)

    def _most_waiting(self, capacity: float) -> float:
        """Return how many requests may wait."""
        return self.patience

    def _needed(self, rate: float, waiting: int) -> float:
        """Return the requests per second to serve, where so many come per second and so many wait."""
        return rate + waiting / self.window_s

    def _is_too_slow(self, load: Load, queue: float) -> bool:
        return False

    def _last_resort(self, load: Load) -> Variant:
        """Return the variant below which there is none."""
        return load.variants[0]

    def _fall(self, load: Load, rate: float) -> str:
        return "smaller"

    def _rise(self, load: Load, rate: float) -> str | None:
        larger = load.larger
        return "larger" if larger is not None and self._keeps_up(larger, load, rate) else None


@dataclass(kw_only=True)
class LatencyObjective(QueriesPerSecond):
    """Keeps the 95th percentile of the latency under `p95_ms` with the best variant that does: the most accurate
    where the portfolio states the accuracy of all, else the largest.

    Watches the load as `QueriesPerSecond` does, with five differences: it looks five times as often, as a burst of
    twice what the active variant serves makes requests late within one objective; requests may wait for 0.7 of the
    objective; so the variant to go up to may be busy all the time; it switches straight to the best variant that
    keeps up with the load and with those that wait; and a variant that exceeds the objective though nothing waits is
    left alone for `avoid_s`.
    """

    interval_s: float = 0.01
    window_s: float = 0.15
    window_requests: int = 40
    high: float = 1.0
    p95_ms: float = 100.0
    avoid_s: float = 30.0
    _latencies_ms: list[float] = field(default_factory=list, init=False, repr=False)
    _judged: str = field(default="", init=False, repr=False)
    _avoided: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _told: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "p95_ms")

    def decide(self, load: Load) -> str | None:
        """Return where to go, or None; see the class."""
        self._listen(load)
        return super().decide(load)

    def _listen(self, load: Load) -> None:
        """Note how long the active variant takes by itself, and that it is ranked by a claim."""
        if load.active.name != self._judged or len(self._latencies_ms) > 1000:
            self._latencies_ms, self._judged = [], load.active.name
        self._tell_claims(load.variants)
        before = self._looks[-1].waiting if self._looks else 0
        if max(before, load.waiting) <= 1:  # what took long for waiting says nothing of the variant
            self._latencies_ms.extend(load.latencies_ms)

    def _tell_claims(self, variants: Sequence[Variant]) -> None:
        """Log once where it ranks by an accuracy that nobody measured."""
        claims = ", ".join(variant.name for variant in variants if variant.accuracy_claimed)
        if claims and claims != self._told and stated_accuracies(variants) is not None:
            _log.warning("variants are ranked by accuracies that are claimed, not measured: %s", claims)
        self._told = claims

    def _most_waiting(self, capacity: float) -> float:
        return max(1.0, _MAY_WAIT * self.p95_ms / 1e3 * min(capacity, 1e6))

    def _needed(self, rate: float, waiting: int) -> float:
        objective_s = self.p95_ms / 1e3  # those that wait are in time, though the queue lasts for four times as long
        return max(rate + waiting / (4 * objective_s), waiting / (_MAY_WAIT * objective_s))

    def _is_too_slow(self, load: Load, queue: float) -> bool:
        enough = len(self._latencies_ms) >= 20
        if queue > 0.1 or not enough or np.quantile(self._latencies_ms, 0.95) <= self.p95_ms:
            return False
        self._avoided[load.active.name] = load.time_s + self.avoid_s
        return True

    def _last_resort(self, load: Load) -> Variant:
        return max(load.variants, key=lambda variant: self._capacities.of(variant, load.active))

    def _fall(self, load: Load, rate: float) -> str:
        capacity = self._capacities.of(load.active, load.active)
        ranked = worst_first(load.variants)
        return self._best(load, rate, [v for v in ranked if self._capacities.of(v, load.active) > capacity]).name

    def _rise(self, load: Load, rate: float) -> str | None:
        ranked = worst_first(load.variants)
        best = self._best(load, rate, ranked)
        return best.name if ranked.index(best) > ranked.index(load.active) else None

    def _best(self, load: Load, rate: float, ranked: Sequence[Variant]) -> Variant:
        """Return the last of `ranked` that keeps up, the fastest of all where none does."""
        for variant in reversed(ranked):
            if self._may_serve(variant, load) and self._keeps_up(variant, load, rate):
                return variant
        return self._last_resort(load)

    def _may_serve(self, variant: Variant, load: Load) -> bool:
        """Return whether one request is in time by `variant`, and that it was not found too slow lately."""
        avoided = self._avoided.get(variant.name, float("-inf")) > load.time_s
        return not avoided and 1e3 / self._capacities.of(variant, load.active) <= self.p95_ms


def worst_first(variants: Sequence[Variant]) -> Sequence[Variant]:
    """Sort by accuracy, of equals the smaller one last; by size where not all state their accuracy."""
    accuracies = stated_accuracies(variants)
    if accuracies is None:
        return variants
    return [variants[i] for i in sorted(range(len(variants)), key=lambda i: (accuracies[i], -i))]


@dataclass
class MemoryBudget:
    """Keeps `keep_free_bytes` of the device's memory free, and takes the largest variant that leaves so much.

    Free is what the system has available, or what the control group of the process may still take, if that is
    less. A step up needs room for both models at once, as the old one serves until the new one is ready.
    """

    keep_free_bytes: int
    interval_s: float = 1.0
    free_bytes: Callable[[], int] = free_memory_bytes

    def __post_init__(self) -> None:
        check_numbers(self, "interval_s")
        check_numbers(self, "keep_free_bytes", zero=True)

    def decide(self, load: Load) -> str | None:
        """Return "smaller", "larger" or None; see the class."""
        free = self.free_bytes()
        if free < self.keep_free_bytes:
            return "smaller"
        # All its weights, as layers that run dense take the zeros in, too; a tenth on top: the session's own
        # memory, and no step back at once.
        if load.larger is not None and free > self.keep_free_bytes + 1.1 * load.larger.weight_bytes:
            return "larger"
        return None


@dataclass
class Together:
    """Several policies at once: the smallest variant that one of them asks for; larger only where all agree.

    Smaller and larger are the portfolio's, by size, also where a policy names the variant it wants.
    """

    policies: Sequence[Policy]

    @property
    def interval_s(self) -> float:
        """The shortest of theirs."""
        return min(policy.interval_s for policy in self.policies)

    def decide(self, load: Load) -> str | None:
        """Return a variant's name or None; see the class."""
        target = load.variants[min(place_of(policy.decide(load), load) for policy in self.policies)]
        return None if target is load.active else target.name


def place_of(answer: str | Variant | None, load: Load) -> int:
    """Return the place in the portfolio that a policy's answer asks for, at its ends the end itself.

    Raises SwitchError, with the names there are, for a name that no variant has.
    """
    name = answer.name if isinstance(answer, Variant) else answer
    step = {None: 0, "smaller": -1, "larger": 1}.get(name)
    if step is not None:
        return min(max(load.variants.index(load.active) + step, 0), len(load.variants) - 1)
    names = [variant.name for variant in load.variants]
    if name not in names:
        raise SwitchError(no_variant(name, load.variants))
    return names.index(name)


def check_numbers(policy: object, *names: str, zero: bool = False) -> None:
    """Raise ValueError where one of these fields is no number above 0 (`zero`: no less than 0)."""
    for name in names:
        value = getattr(policy, name)
        if not isinstance(value, Real) or not (float(value) > 0 or (zero and value == 0)):
            wanted = "from 0 on" if zero else "above 0"
            raise ValueError(f"{type(policy).__name__}: {name}={value!r}, where a number {wanted} is needed")
