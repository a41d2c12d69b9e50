"""Load over time: built-in traces, traces from CSV files, and the requests that they make come.

A load is stated relative to what the largest variant can serve: 1 keeps it busy all the time.
"""

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnx_shift.errors import OnnxShiftError

_MOST_REQUESTS = 10_000_000  # each is remembered, and served three times


class TraceError(OnnxShiftError):
    """A load trace that is unknown or cannot be read."""


@dataclass(frozen=True)
class Trace:
    """The load of consecutive intervals of `interval_s` seconds; where not `relative`, in requests per
    second.
    """

    name: str
    interval_s: float
    loads: tuple[float, ...]
    relative: bool = True

    @property
    def duration_s(self) -> float:
        return self.interval_s * len(self.loads)

    def rates(self, capacity: float) -> npt.NDArray[np.float64]:
        """Return requests per second of each interval, where the largest variant serves `capacity`."""
        return np.array(self.loads, np.float64) * (capacity if self.relative else 1.0)

    def arrivals(self, capacity: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """Return when requests come, in seconds from the start: at random, independent of each other
        (Poisson). Raises TraceError where they would be too many to serve.
        """
        rates = self.rates(capacity)
        expected = float(rates.sum()) * self.interval_s
        if not expected <= _MOST_REQUESTS:
            raise TraceError(f"{self.name}: {expected:.3g} requests would come, at most {_MOST_REQUESTS:,} can")
        counts = random.poisson(rates * self.interval_s)
        starts = np.repeat(np.arange(len(rates)) * self.interval_s, counts)
        return np.sort(starts + random.random(len(starts)) * self.interval_s)


def _ramp(at: float) -> float:
    return 0.2 + 1.2 * (1 - abs(2 * at - 1))


def _step(at: float) -> float:
    return 1.3 if 0.3 <= at < 0.7 else 0.3


def _burst(at: float) -> float:
    return 1.4 if at * 5 % 1 >= 0.75 else 0.4


def _day(at: float) -> float:
    # Night, a peak before noon, a higher one in the evening.
    peaks = math.exp(-(((at - 0.42) / 0.1) ** 2)), math.exp(-(((at - 0.8) / 0.09) ** 2))
    return 0.15 + 0.8 * peaks[0] + 1.2 * peaks[1]


SHAPES: Mapping[str, Callable[[float], float]] = {"ramp": _ramp, "step": _step, "burst": _burst, "day": _day}
_INTERVALS = 100


def builtin_trace(name: str, duration_s: float) -> Trace:
    """Return the trace `name` (ramp, step, burst or day), stretched over `duration_s` seconds."""
    if name not in SHAPES:
        raise TraceError(f"{name}: no load trace; there are {', '.join(SHAPES)}, or a CSV file")
    if not 0 < duration_s < math.inf:
        raise TraceError(f"a load trace cannot last {duration_s} seconds")
    loads = tuple(SHAPES[name]((index + 0.5) / _INTERVALS) for index in range(_INTERVALS))
    return Trace(name, duration_s / _INTERVALS, loads)


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Return the trace in a CSV file with a header: `seconds`, evenly spaced, and `load` or
    `requests_per_second`.

    Each row holds from its time to the next one's. Raises TraceError naming file and line.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark first
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read ({error})") from error
    kind = next((name for name in ("load", "requests_per_second") if rows and name in rows[0][1]), None)
    if kind is None or "seconds" not in rows[0][1] or len(rows) < 2:
        raise TraceError(f"{path}: needs two rows or more of `seconds` and `load` or `requests_per_second`")
    values = [[_number(path, line, row, name) for name in ("seconds", kind)] for line, row in rows]
    times = np.array([time for time, _ in values])
    steps = np.diff(times)
    rounded = 4 * np.spacing(np.abs(times).max())  # as times since 1970 are
    if steps.min() <= 0 or not np.allclose(steps, steps[0], rtol=1e-6, atol=rounded):
        raise TraceError(f"{path}: `seconds` must rise by the same step from row to row")
    return Trace(Path(path).stem, float(steps.mean()), tuple(value for _, value in values), kind == "load")


def _number(path: str | os.PathLike[str], line: int, row: Mapping[str, str | None], name: str) -> float:
    try:
        number = float(row[name] or "")
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise TraceError(f"{path}: line {line}: {name} is {row[name]!r}, which is no load or time")
    return number
