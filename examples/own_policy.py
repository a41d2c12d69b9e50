"""A policy of your own: while the battery is low the smallest variant serves, else what a latency objective asks for.

    python examples/own_policy.py PORTFOLIO.zip
    onnx-shift replay PORTFOLIO.zip --policy own_policy:battery_saver      # in this folder

A policy is any object with `interval_s`, seconds between two looks, and `decide`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from onnx_shift.runtime import LatencyObjective, Load, ModelSwitcher


def battery_percent() -> int:
    """Charge of the first battery, as Linux states it; 100 where there is none."""
    for path in Path("/sys/class/power_supply").glob("BAT*/capacity"):
        return int(path.read_text())
    return 100


class BatterySaver:
    """The smallest variant below `low_percent`; otherwise the latency objective decides."""

    interval_s = 0.05

    def __init__(self, p95_ms: float, low_percent: int = 20, percent: Callable[[], int] = battery_percent) -> None:
        self.otherwise = LatencyObjective(p95_ms=p95_ms)
        self.low_percent = low_percent
        self.percent = percent

    def decide(self, load: Load) -> str | None:
        wanted = self.otherwise.decide(load)  # asked in any case, since it learns from every look
        return load.variants[0].name if self.percent() < self.low_percent else wanted


def battery_saver(objective_ms: float) -> BatterySaver:
    """What `onnx-shift replay --policy` calls."""
    return BatterySaver(objective_ms)


def main(portfolio: str) -> None:
    policy = BatterySaver(p95_ms=50, percent=lambda: 10)  # as if the battery were at 10 %
    with ModelSwitcher(portfolio, providers=["CPUExecutionProvider"], policy=policy, cache=False) as model:
        smallest = model.portfolio.variants[0].name
        print(f"serving {model.active.name}")
        deadline = time.monotonic() + 10
        while model.active.name != smallest and time.monotonic() < deadline:
            time.sleep(0.01)
        print(f"the battery is low: serving {model.active.name}")


if __name__ == "__main__":
    main(sys.argv[1])
