"""What a policy sees, and what it is: the contract between the switcher and any policy."""

from dataclasses import dataclass
from typing import Protocol

from onnx_shift.runtime.portfolio import Variant


@dataclass(frozen=True)
class Load:
    """What a policy sees each time: the requests since it last looked, and those that wait now.

    `arrived` counts a request when it comes, not when it is answered, so that a device that falls behind and
    one that idles look different. `waiting` are those not answered yet, in the application's own queue or
    inside `run`; `busy_s` is the time in which at least one request was served. `woken` of those completed were the
    first after a pause, which take longer than those that follow: `woken_s` in all.
    """

    time_s: float
    interval_s: float
    arrived: int
    completed: int
    waiting: int
    busy_s: float
    latencies_ms: tuple[float, ...]
    active: Variant
    variants: tuple[Variant, ...]
    woken: int = 0
    woken_s: float = 0.0

    def __str__(self) -> str:
        """In words: requests per second, how many wait, and the 95th percentile of the latency."""
        rate = self.arrived / self.interval_s if self.interval_s else 0.0
        latencies = sorted(self.latencies_ms)
        p95 = f", 95 % within {latencies[int(0.95 * (len(latencies) - 1))]:.1f} ms" if latencies else ""
        return f"{rate:.0f} requests/s, {self.waiting} waiting{p95}"

    @property
    def larger(self) -> Variant | None:
        """The next larger variant, if there is one."""
        index = self.variants.index(self.active) + 1
        return self.variants[index] if index < len(self.variants) else None


class Policy(Protocol):
    """Anything with these two: `decide` is called every `interval_s` seconds, from one thread.

    It returns "smaller", "larger", a variant or its name, or None to stay.
    """

    @property
    def interval_s(self) -> float: ...

    def decide(self, load: Load) -> str | Variant | None: ...
