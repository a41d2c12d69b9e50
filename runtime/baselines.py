"""How published serving systems choose a variant, as small policies to compare with.

Each is written from its paper's description, reduced to one device with one queue: what these systems add for clusters,
placing replicas and sharing devices, has no place here. All know each variant's latency from its profile, and move
straight to the variant that they choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx_shift.runtime.capacity import profiled_latency_ms
from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.load import Load
from onnx_shift.runtime.portfolio import Variant, stated_accuracies


def _by_accuracy(variants: Sequence[Variant]) -> list[tuple[float, Variant]]:
    """Return (latency in ms, variant), the most accurate first. Raises SwitchError where no latency is stated."""
    accuracies = stated_accuracies(variants) or tuple(map(float, range(len(variants))))
    rows = []
    for variant in variants:
        latency_ms = profiled_latency_ms(variant)
        if latency_ms is None:
            raise SwitchError(f"{variant.name}: states no latency, which this policy needs; pack with --profile")
        rows.append((latency_ms, variant))
    order = sorted(range(len(rows)), key=lambda index: (-accuracies[index], rows[index][0]))
    return [rows[index] for index in order]


def _fastest(rows: Sequence[tuple[float, Variant]]) -> Variant:
    return min(rows, key=lambda row: row[0])[1]


@dataclass(kw_only=True)
class ProfileDriven:
    """The most accurate variant whose profiled latency and throughput suffice for the load of the last second.

    After INFaaS (Romero et al., USENIX ATC 2021) and Model-Switching (Zhang et al., HotCloud 2020), which choose from
    profiles made beforehand, by the observed rate of requests.
    """

    p95_ms: float = 100.0
    interval_s: float = 0.1
    window_s: float = 1.0
    _looks: list[Load] = field(default_factory=list, init=False, repr=False)

    def decide(self, load: Load) -> str:
        """Return the name of the variant chosen."""
        self._looks = [look for look in self._looks if look.time_s > load.time_s - self.window_s] + [load]
        seconds = sum(look.interval_s for look in self._looks)
        rate = sum(look.arrived for look in self._looks) / seconds if seconds else 0.0
        rows = _by_accuracy(load.variants)
        fits = (v for latency_ms, v in rows if latency_ms <= self.p95_ms and rate * latency_ms / 1e3 < 1)
        return next(fits, _fastest(rows)).name


@dataclass(kw_only=True)
class SlackBased:
    """The most accurate variant that still answers the requests that wait within what is left of the objective.

    After SuperServe's SlackFit (Khare et al., NSDI 2025): the slack of the oldest request bounds the latency of what
    is chosen next. The oldest has waited at least as long as it took for those that wait to come.
    """

    p95_ms: float = 100.0
    interval_s: float = 0.01
    _looks: list[Load] = field(default_factory=list, init=False, repr=False)

    def decide(self, load: Load) -> str:
        """Return the name of the variant chosen."""
        horizon_s = self.p95_ms / 1e3
        self._looks = [look for look in self._looks if look.time_s > load.time_s - horizon_s] + [load]
        rows = _by_accuracy(load.variants)
        slack_ms = self.p95_ms - self._oldest_ms(load)
        fits = (variant for latency_ms, variant in rows if max(load.waiting, 1) * latency_ms <= slack_ms)
        return next(fits, _fastest(rows)).name

    def _oldest_ms(self, load: Load) -> float:
        left = load.waiting
        for look in reversed(self._looks):
            left -= look.arrived
            if left <= 0:
                return 0.0 if not load.waiting else (load.time_s - look.time_s) * 1e3
        return self.p95_ms


@dataclass(kw_only=True)
class AccuracyScaling:
    """Requests shared between two neighbours in accuracy so that the device is busy and no more: on one device, in
    turns.

    After Proteus (Ahmad et al., ASPLOS 2024) and Loki (Ahmad et al., HPDC 2024), which solve for the mix of variants of
    the highest accuracy whose capacity meets the demand that they estimate; re-solved every `plan_s`.
    """

    p95_ms: float = 100.0
    interval_s: float = 0.05
    plan_s: float = 1.0
    headroom: float = 1.05
    _demand: float = field(default=0.0, init=False, repr=False)
    _planned_s: float = field(default=float("-inf"), init=False, repr=False)
    _arrived: int = field(default=0, init=False, repr=False)
    _share: tuple[str, str, float] = field(default=("", "", 1.0), init=False, repr=False)
    _credit: float = field(default=0.0, init=False, repr=False)

    def decide(self, load: Load) -> str:
        """Return the name of the variant whose turn it is."""
        self._arrived += load.arrived
        if load.time_s - self._planned_s >= self.plan_s:
            seconds = min(load.time_s - self._planned_s, 1e6)
            seen = self._arrived / (seconds if seconds < 1e6 else load.interval_s or 1.0)
            self._demand = 0.5 * self._demand + 0.5 * seen if self._demand else seen
            self._share = self._plan(load, self.headroom * self._demand)
            self._arrived, self._planned_s = 0, load.time_s
        better, worse, share = self._share
        self._credit += share
        if self._credit >= 1:
            self._credit -= 1
            return better
        return worse

    def _plan(self, load: Load, demand: float) -> tuple[str, str, float]:
        """Return a variant, the next less accurate that is faster, and the share of the time that the first serves."""
        fits = [(ms, variant) for ms, variant in _by_accuracy(load.variants) if ms <= self.p95_ms]
        rows = fits or [min(_by_accuracy(load.variants), key=lambda row: row[0])]
        better = rows[0]
        for row in rows:
            if 1e3 / row[0] >= demand:
                if row is better or 1e3 / better[0] >= demand:
                    return row[1].name, row[1].name, 1.0
                # share s of the time on the better: s * its rate + (1 - s) * this one's = demand
                fast, slow = 1e3 / row[0], 1e3 / better[0]
                return better[1].name, row[1].name, (fast - demand) / (fast - slow)
            better = row if row[0] <= better[0] else better
        name = _fastest(rows).name
        return name, name, 1.0
