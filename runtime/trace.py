"""Load over time: built-in shapes, random loads, traces from files, and the requests that they make come.

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

Floats = npt.NDArray[np.float64]

_MOST_REQUESTS = 10_000_000  # each is remembered, and served three times


class TraceError(OnnxShiftError):
    """A load trace that is unknown or cannot be read."""


@dataclass(frozen=True)
class Trace:
    """The load of consecutive intervals of `interval_s` seconds; where not `relative`, in requests per
    second.

    `arrival_cv` is the coefficient of variation of the gaps between requests: 1 is a Poisson process, above it they
    come in clusters (gamma process, as published comparisons of serving systems draw them).
    """

    name: str
    interval_s: float
    loads: tuple[float, ...]
    relative: bool = True
    arrival_cv: float = 1.0

    @property
    def duration_s(self) -> float:
        return self.interval_s * len(self.loads)

    def rates(self, capacity: float) -> Floats:
        """Return requests per second of each interval, where the largest variant serves `capacity`."""
        return np.array(self.loads, np.float64) * (capacity if self.relative else 1.0)

    def arrivals(self, capacity: float, random: np.random.Generator) -> Floats:
        """Return when requests come, in seconds from the start, at random. Raises TraceError where they would be too
        many to serve.
        """
        rates = self.rates(capacity)
        expected = float(rates.sum()) * self.interval_s
        if not expected <= _MOST_REQUESTS:
            raise TraceError(f"{self.name}: {expected:.3g} requests would come, at most {_MOST_REQUESTS:,} can")
        if self.arrival_cv != 1.0:
            return self._clustered(rates, random)
        counts = random.poisson(rates * self.interval_s)
        starts = np.repeat(np.arange(len(rates)) * self.interval_s, counts)
        return np.sort(starts + random.random(len(starts)) * self.interval_s)

    def _clustered(self, rates: Floats, random: np.random.Generator) -> Floats:
        """Draw gaps of mean 1 in units of expected requests, and look up when so many are expected to have come."""
        expected = np.concatenate([[0.0], np.cumsum(rates) * self.interval_s])
        shape = self.arrival_cv**-2
        come: list[Floats] = [np.zeros(1)]
        while come[-1][-1] < expected[-1]:
            come.append(come[-1][-1] + np.cumsum(random.gamma(shape, 1 / shape, 1 + int(expected[-1]))))
        counts = np.concatenate(come[1:]) if len(come) > 1 else np.zeros(0)
        edges = np.arange(len(expected)) * self.interval_s
        clustered: Floats = np.interp(counts[counts < expected[-1]], expected, edges)
        return clustered


@dataclass(frozen=True)
class RecordedTrace(Trace):
    """Requests as they once came: `times_s` from the start, rising. Some are left out at random where they bring more
    than `load` of what the largest variant serves; time is never stretched.
    """

    times_s: tuple[float, ...] = ()
    load: float = math.inf

    def arrivals(self, capacity: float, random: np.random.Generator) -> Floats:
        """Return when the requests come that are kept, in seconds from the start."""
        times: Floats = np.array(self.times_s)
        kept = min(1.0, self.load * capacity * self.duration_s / max(times.size, 1))
        thinned: Floats = times[random.random(times.size) < kept]
        return thinned


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
RANDOM = ("poisson", "gamma", "bursty")
_INTERVALS = 100
_BURSTY_STEP_S = 0.5
_BURSTY_MOST = 1.8  # of what the largest variant serves


def builtin_trace(name: str, duration_s: float) -> Trace:
    """Return the trace `name` (ramp, step, burst or day), stretched over `duration_s` seconds."""
    if name not in SHAPES:
        raise TraceError(f"{name}: no load trace; there are {', '.join([*SHAPES, *RANDOM])}, or a CSV file")
    _check_duration(duration_s)
    loads = tuple(SHAPES[name]((index + 0.5) / _INTERVALS) for index in range(_INTERVALS))
    return Trace(name, duration_s / _INTERVALS, loads)


def random_trace(name: str, duration_s: float, *, load: float = 0.5, cv: float | None = None, seed: int = 0) -> Trace:
    """Return a trace of mean `load`: "poisson" and "gamma" keep it all the time, and requests come independently of
    each other or, for gamma, with a coefficient of variation of `cv` between their gaps (4 unless given); "bursty"
    draws another load every half second, gamma distributed with that `cv`, cut at 1.8. Raises TraceError.
    """
    if name not in RANDOM:
        raise TraceError(f"{name}: no random load; there are {', '.join(RANDOM)}")
    _check_duration(duration_s)
    cv = (1.0 if name == "poisson" else 4.0) if cv is None else cv
    if not 0 < load < math.inf or not 0.1 <= cv <= 16 or (name == "poisson" and cv != 1.0):
        raise TraceError(
            f"{name}: a load of {load:g} with cv={cv:g}: a load is above 0, cv from 0.1 to 16, of poisson 1"
        )
    if name != "bursty":
        return Trace(name, duration_s / _INTERVALS, (load,) * _INTERVALS, arrival_cv=cv)
    steps = max(1, round(duration_s / _BURSTY_STEP_S))
    drawn = np.random.default_rng(seed).gamma(cv**-2, load * cv**2, steps)
    return Trace(name, duration_s / steps, tuple(np.minimum(drawn, _BURSTY_MOST).tolist()))


def _check_duration(duration_s: float) -> None:
    if not 0 < duration_s < math.inf:
        raise TraceError(f"a load trace cannot last {duration_s} seconds")


def read_trace(path: str | os.PathLike[str], *, duration_s: float = 30.0, load: float | None = None) -> Trace:
    """Return the trace in a CSV file with a header: `seconds`, evenly spaced, and `load` or `requests_per_second`; each
    row holds from its time to the next one's.

    A file with `end_timestamp` and `duration`, one invocation a row, has the format of the Azure Functions trace of
    2021: its first `duration_s` seconds are served, thinned to a mean of `load`. Raises TraceError naming file and
    line.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark first
            reader = csv.DictReader(file)
            if {"end_timestamp", "duration"} <= set(reader.fieldnames or ()):
                return _invocations(path, reader, duration_s, math.inf if load is None else load)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read ({error})") from error
    kind = next((name for name in ("load", "requests_per_second") if rows and name in rows[0][1]), None)
    if kind is None or "seconds" not in rows[0][1] or len(rows) < 2:
        raise TraceError(
            f"{path}: needs two rows or more of `seconds` and `load` or `requests_per_second`, or invocations with "
            "`end_timestamp` and `duration`"
        )
    values = [[_number(path, line, row, name) for name in ("seconds", kind)] for line, row in rows]
    times = np.array([time for time, _ in values])
    steps = np.diff(times)
    rounded = 4 * np.spacing(np.abs(times).max())  # as times since 1970 are
    if steps.min() <= 0 or not np.allclose(steps, steps[0], rtol=1e-6, atol=rounded):
        raise TraceError(f"{path}: `seconds` must rise by the same step from row to row")
    return Trace(Path(path).stem, float(steps.mean()), tuple(value for _, value in values), kind == "load")


def _invocations(
    path: str | os.PathLike[str], reader: "csv.DictReader[str]", duration_s: float, load: float
) -> RecordedTrace:
    """Read when each invocation began; rows stand in the order of their ends."""
    _check_duration(duration_s)
    began = []
    for row in reader:
        end_s, took_s = (_number(path, reader.line_num, row, name) for name in ("end_timestamp", "duration"))
        began.append(end_s - took_s)
    if not began:
        raise TraceError(f"{path}: holds no invocation")
    times = np.sort(np.array(began))
    times = (times - times[0])[times - times[0] < duration_s]
    interval_s = duration_s / _INTERVALS
    counts = np.histogram(times, _INTERVALS, (0.0, duration_s))[0]
    return RecordedTrace(
        Path(path).stem, interval_s, tuple((counts / interval_s).tolist()), False, 1.0, tuple(times.tolist()), load
    )


def _number(path: str | os.PathLike[str], line: int, row: Mapping[str, str | None], name: str) -> float:
    try:
        number = float(row[name] or "")
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise TraceError(f"{path}: line {line}: {name} is {row[name]!r}, which is no load or time")
    return number
