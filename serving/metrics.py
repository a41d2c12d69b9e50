"""What Prometheus is told, under names that begin with onnx_shift_."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from onnx_shift.runtime import ModelSwitcher
from onnx_shift.runtime.metrics import prometheus_collector

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """What the server counts, and what its switcher counts itself, in a registry of its own: one process may hold
    several servers.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given: dict[str, Any] = {"namespace": "onnx_shift", "registry": self.registry}
        self._counters: dict[tuple[int, str], Counter] = {}
        self.requests = Counter("http_requests", "Inferences asked for.", ["status", "variant"], **given)
        self.latency = Histogram(
            "http_request_seconds", "From a request's headers to its answer.", buckets=_SECONDS, **given
        )
        self.queued = Histogram("queue_seconds", "Waiting for a worker.", buckets=_SECONDS, **given)
        self.waiting = Gauge("waiting_requests", "Requests that wait for a worker.", **given)
        self.switches = Counter("switches_by_reason", "Switches, by what caused them.", ["reason"], **given)
        self.loads = Counter("loads", "Readings of the portfolio's file, by what came of them.", ["result"], **given)
        self.portfolio = Gauge("portfolio_info", "1 for the portfolio that serves.", ["sha256"], **given)
        Gauge("resident_bytes", "Memory of the process.", **given).set_function(resident_bytes)
        for result in ("taken", "unchanged", "refused"):
            self.loads.labels(result)

    def count(self, status: int, variant: str = "") -> None:
        """Count an inference that was answered with `status`, and by `variant` where one answered it."""
        counter = self._counters.get((status, variant))
        if counter is None:  # looking it up by its labels takes longer than counting
            counter = self._counters[status, variant] = self.requests.labels(str(status), variant)
        counter.inc()

    def watch(self, switcher: ModelSwitcher, waiting: Callable[[], int]) -> None:
        """Tell of this switcher, and of the requests that wait, whenever somebody looks."""
        self.registry.register(prometheus_collector(switcher))
        self.waiting.set_function(waiting)

    def show_portfolio(self, sha256: str) -> None:
        """State which portfolio serves."""
        self.portfolio.clear()
        self.portfolio.labels(sha256).set(1)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)


def resident_bytes() -> float:
    """Return the memory of this process that lies in RAM, 0 where the system does not say."""
    try:
        return float(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"))
    except OSError:
        return 0.0
