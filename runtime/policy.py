"""When to switch: policies look at the load and name a variant."""

from dataclasses import dataclass
from typing import Protocol

from onnx_shift.runtime.portfolio import Variant


@dataclass(frozen=True)
class Load:
    """What a policy sees each time: the requests since it last looked, and those that wait now.

    `arrived` counts a request when it comes, not when it is answered, so that a device that falls behind and
    one that idles look different. `waiting` are those not answered yet, in the application's own queue or
    inside `run`. `busy_s` is the time in which at least one request was served.
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


class Policy(Protocol):
    """Anything with these two: `decide` is called every `interval_s` seconds, from one thread.

    It returns "smaller", "larger", a variant's name, or None to stay.
    """

    interval_s: float

    def decide(self, load: Load) -> str | None: ...
