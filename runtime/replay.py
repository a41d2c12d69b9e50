"""Driving a load trace against a portfolio: requests come when the trace says, whether or not the device
keeps up.
"""

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_shift.runtime.builder import smallest_shapes
from onnx_shift.runtime.controller import check_policy
from onnx_shift.runtime.errors import RunError, SwitchError
from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.policy import LatencyObjective, place_of
from onnx_shift.runtime.portfolio import Portfolio, Variant, stated_accuracies
from onnx_shift.runtime.queueing import Floats, ServedTrace, clairvoyant
from onnx_shift.runtime.session import Options, Provider
from onnx_shift.runtime.switcher import ModelSwitcher
from onnx_shift.runtime.trace import Trace, TraceError

_CALIBRATION_S = 1.0
_LOOK_S = 0.25
DEFAULT_OBJECTIVE_MS = 100.0


@dataclass(frozen=True)
class Moment:
    """What can be said while a replay runs: seconds since its start, and of the last second the requests that
    came, their 95th percentile; how many wait, and which variant serves.
    """

    run: str
    time_s: float
    duration_s: float
    requests_per_second: float
    p95_ms: float
    waiting: int
    active: str


@dataclass(frozen=True)
class Timeline:
    """A trace as the policy served it, beside other policies, the smallest and the largest variant always, and the
    clairvoyant.

    `runs` are named policy, smallest, largest and clairvoyant, other policies as they were given. That of the
    clairvoyant is worked out from `service_ms`, the time of a request by variant, the mean of before and after the
    others. `accuracies` are None where the portfolio does not state them all.
    """

    trace: Trace
    variants: tuple[str, ...]
    accuracies: tuple[float, ...] | None
    service_ms: tuple[float, ...]
    capacity: float
    objective_ms: float
    runs: Mapping[str, ServedTrace]

    def summary(self, name: str) -> dict[str, Any]:
        """Return the figures of one run, ready for JSON."""
        run = self.runs[name]
        latencies = run.latency_ms if run.latency_ms.size else np.zeros(1)
        p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99))
        served = run.served_accuracy(self.accuracies) if self.accuracies else None
        return {
            "requests": int(run.latency_ms.size),
            "failed": int(np.count_nonzero(run.variant < 0)),
            "within_objective": run.within(self.objective_ms) / max(run.latency_ms.size, 1),
            "latency_ms": {"p50": float(p50), "p95": float(p95), "p99": float(p99)},
            "accuracy": run.accuracy(self.accuracies) if self.accuracies else None,
            "mean_accuracy_served": served[0] if served else None,
            "largest_accuracy_drop": served[1] if served else None,
            "switches": len(run.switches),
        }

    def figures(self) -> dict[str, float | None]:
        """Return how the policy compares: requests within the objective over those of the smallest
        always, and the gain in accuracy over it as a share of the clairvoyant's.
        """
        within = {name: run.within(self.objective_ms) for name, run in self.runs.items()}
        gain = None
        if self.accuracies:
            served = {name: run.accuracy(self.accuracies) for name, run in self.runs.items()}
            possible = served["clairvoyant"] - served["smallest"]
            gain = (served["policy"] - served["smallest"]) / possible if possible > 0 else None
        return {"within_of_smallest": within["policy"] / max(within["smallest"], 1), "accuracy_gain": gain}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return one run interval by interval, ready for JSON."""
        run, step = self.runs[name], self.trace.interval_s
        edges = np.searchsorted(run.arrived_s, np.arange(len(self.trace.loads) + 1) * step)
        rows = []
        for index, load in enumerate(self.trace.loads):
            part = slice(edges[index], edges[index + 1])
            latencies, served = run.latency_ms[part], run.variant[part]
            served = served[served >= 0]
            rows.append(
                {
                    "seconds": index * step,
                    "load": load,
                    "requests_per_second": latencies.size / step,
                    "p50_ms": float(np.quantile(latencies, 0.5)) if latencies.size else None,
                    "p95_ms": float(np.quantile(latencies, 0.95)) if latencies.size else None,
                    "variant": self.variants[int(np.bincount(served).argmax())] if served.size else None,
                    "accuracy": float(np.array(self.accuracies)[served].mean())
                    if self.accuracies and served.size
                    else None,
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single requests, ready for JSON."""
        return {
            "trace": self.trace.name,
            "duration_s": self.trace.duration_s,
            "relative": self.trace.relative,
            "variants": list(self.variants),
            "accuracies": list(self.accuracies) if self.accuracies else None,
            "service_ms": list(self.service_ms),
            "largest_serves_per_second": self.capacity,
            "objective_ms": self.objective_ms,
            "figures": self.figures(),
            "runs": {
                name: {
                    **self.summary(name),
                    "switched": [[seconds, self.variants[index]] for seconds, index in run.switches],
                    "intervals": self.rows(name),
                }
                for name, run in self.runs.items()
            },
        }


def replay(
    portfolio: Portfolio,
    trace: Trace,
    *,
    make_policy: Callable[[float], Policy] | None = None,
    others: Mapping[str, Callable[[float], Policy]] | None = None,
    objective_ms: float | None = None,
    sess_options: Options = None,
    providers: Sequence[Provider] | None = None,
    feed: Mapping[str, Any] | None = None,
    seed: int = 0,
    cache: Any = True,
    progress: Callable[[Moment], None] | None = None,
) -> Timeline:
    """Serve `trace` three times over, by a policy, the smallest and the largest variant; return what came of
    it.

    Before and after, each variant is timed; loads are relative to what the largest serves. `make_policy` is given
    the objective in milliseconds (by default 100, or ten requests of the largest variant if that is more) and
    returns the policy, by default LatencyObjective; `others` make policies that serve it as well, each under its name.
    `feed` is what each request asks, by default zeros of the
    smallest shape. Raises TraceError for a load or an objective that cannot be, SwitchError where the policy fails.
    """
    if objective_ms is not None and not 0 < objective_ms < math.inf:
        raise TraceError(f"an objective of {objective_ms:g} ms: must be above 0 and finite")
    options: dict[str, Any] = {"sess_options": sess_options, "providers": providers, "cache": cache}
    asked = feed if feed is not None else _zeros(portfolio)
    service_ms = _time_variants(portfolio, asked, options)
    if objective_ms is None:
        objective_ms = max(DEFAULT_OBJECTIVE_MS, 10 * service_ms[-1])
    capacity = 1e3 / service_ms[-1]
    arrived_s = trace.arrivals(capacity, np.random.default_rng(seed))
    chosen = {"policy": make_policy(objective_ms) if make_policy else LatencyObjective(p95_ms=objective_ms)}
    chosen |= {name: make(objective_ms) for name, make in (others or {}).items()}
    for policy in chosen.values():
        check_policy(policy)
    policies = {name: _Watched(policy) for name, policy in chosen.items()}
    names = [variant.name for variant in portfolio]
    ways: dict[str, dict[str, Any]] = {name: {"policy": policy} for name, policy in policies.items()}
    ways |= {"smallest": {"start": names[0]}, "largest": {"start": names[-1]}}
    runs = {
        run: _serve(portfolio, arrived_s, trace.duration_s, asked, {**options, **given}, run, progress)
        for run, given in ways.items()
    }
    for name, watched in policies.items():
        if watched.failure is not None:
            what = "the policy" if name == "policy" else f"the policy {name}"
            raise SwitchError(f"{what} failed: {watched.failure!r}") from watched.failure
    after_ms = _time_variants(portfolio, asked, options)  # a device that others use may have changed its pace
    service_ms = tuple((before + after) / 2 for before, after in zip(service_ms, after_ms, strict=True))
    accuracies = stated_accuracies(portfolio)
    runs["clairvoyant"] = clairvoyant(
        arrived_s,
        max(trace.interval_s, 1.0, 0.1 * service_ms[-1]),  # long enough to know the load, not single requests
        [time_ms / 1e3 for time_ms in service_ms],
        accuracies or range(len(names)),
        objective_ms,
    )
    return Timeline(trace, tuple(names), accuracies, service_ms, capacity, objective_ms, runs)


class _Watched:
    """A policy whose failure is remembered: served without it, the trace would say nothing of it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.failure: Exception | None = None

    @property
    def interval_s(self) -> float:
        return self._policy.interval_s

    def decide(self, load: Load) -> str | Variant | None:
        try:
            target = self._policy.decide(load)
            place_of(target, load)  # refuses what no variant is called
        except Exception as error:
            self.failure = error
            raise
        return target


def _zeros(portfolio: Portfolio) -> dict[str, Any]:
    shapes = smallest_shapes(portfolio.inputs)
    if shapes is None:
        raise RunError("an input is no numeric tensor: replay needs a feed")
    return {name: np.zeros(*shape) for name, shape in shapes.items()}


def _time_variants(portfolio: Portfolio, feed: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the mean time of a request in milliseconds, one after the other, by variant."""
    times = []
    with ModelSwitcher(portfolio, start=portfolio.variants[0].name, **options) as switcher:
        for variant in portfolio:
            switcher.switch(variant)
            switcher.run(None, feed)
            began, count = time.perf_counter(), 0
            while count < 3 or time.perf_counter() - began < _CALIBRATION_S:
                switcher.run(None, feed)
                count += 1
            times.append((time.perf_counter() - began) / count * 1e3)
    return tuple(times)


def _serve(
    portfolio: Portfolio,
    arrived_s: Floats,
    duration_s: float,
    feed: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str,
    progress: Callable[[Moment], None] | None,
) -> ServedTrace:
    due = arrived_s.tolist()
    names = [variant.name for variant in portfolio]
    latency_ms, variant = np.full(len(due), np.nan), np.full(len(due), -1)
    answered = 0  # requests taken from the queue and done with
    failures: list[BaseException] = []
    began = time.perf_counter()

    def queued() -> int:
        come = bisect_right(due, time.perf_counter() - began)
        return max(0, come - answered - 1)  # one is inside the switcher, which counts it

    with ModelSwitcher(portfolio, waiting=queued, **options) as switcher:
        began = time.perf_counter()

        def work() -> None:
            try:
                serve()
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        def serve() -> None:
            nonlocal answered
            for index, due_s in enumerate(due):
                wait_s = due_s - (time.perf_counter() - began)
                if wait_s > 0:
                    time.sleep(wait_s)
                active = names.index(switcher.active.name)
                with suppress(RunError, SwitchError):  # counted as failed
                    switcher.run(None, feed)
                    variant[index] = active
                latency_ms[index] = (time.perf_counter() - began - due_s) * 1e3
                answered = index + 1

        worker = threading.Thread(target=work, name="onnx-shift-replay", daemon=True)
        worker.start()
        while worker.is_alive():
            worker.join(_LOOK_S)
            if progress is not None and worker.is_alive():
                now = time.perf_counter() - began
                last = latency_ms[bisect_right(due, now - 1.0) : answered]
                p95_ms = float(np.quantile(last, 0.95)) if last.size else 0.0
                rate = bisect_right(due, now) - bisect_right(due, now - 1.0)
                progress(Moment(name, now, duration_s, rate, p95_ms, queued(), switcher.active.name))
        if failures:
            raise failures[0]
        switches = tuple(
            (record.time_s - began, names.index(record.active)) for record in switcher.records if record.changed
        )
    return ServedTrace(arrived_s, latency_ms, variant, switches)
