"""What Prometheus is told, under names that begin with onnx_shift_."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The server's own registry, so that several servers may live in one process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given: dict[str, Any] = {"namespace": "onnx_shift", "registry": self.registry}
        self.requests = Counter(
            "requests",
            "Inference requests, by HTTP status and by variant.",
            ["status", "variant"],
            **given,
        )
        self.latency = Histogram(
            "request_seconds", "From the request's headers to its answer.", buckets=_SECONDS, **given
        )
        self.queued = Histogram("queue_seconds", "Waiting for a thread.", buckets=_SECONDS, **given)
        self.waiting = Gauge("waiting", "Requests that wait for a thread.", **given)
        self.active = Gauge("active_variant", "1 for the variant that serves.", ["variant"], **given)
        self.switches = Counter("switches", "Exchanges of the variant, by what caused them.", ["reason"], **given)
        self.updates = Counter("updates", "New portfolios, by whether they were taken or refused.", ["result"], **given)
        self.portfolio = Gauge("portfolio_info", "1 for the portfolio that serves.", ["sha256"], **given)
        self.resident = Gauge("resident_bytes", "Memory of the process.", **given)
        self.resident.set_function(resident_bytes)
        for result in ("taken", "refused"):
            self.updates.labels(result)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the requests in the queue whenever somebody looks."""
        self.waiting.set_function(waiting)

    def text(self, variant: str, sha256: str) -> bytes:
        """Return all of them in Prometheus' text format; `variant` and the portfolio of `sha256` serve now."""
        for gauge, label in ((self.active, variant), (self.portfolio, sha256)):
            gauge.clear()
            gauge.labels(label).set(1)
        return generate_latest(self.registry)


def resident_bytes() -> float:
    """Return the memory of this process that lies in RAM, 0 where the system does not say."""
    try:
        return float(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"))
    except OSError:
        return 0.0
