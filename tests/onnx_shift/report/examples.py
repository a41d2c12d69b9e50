"""A profile, a replay and what a report gathers of them."""

import csv
import io
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

from onnx_shift.portfolio.profile import Profile
from onnx_shift.report.evidence import Evidence, Layer, Pruning


def _entry(accuracy: float, latency: float, size: int, noisy: bool = False) -> dict[str, Any]:
    figures = {"p50": latency, "p95": 2 * latency, "p99": 3 * latency, "noisy": noisy}
    speedup = {"median": 10 / latency, "low": 9 / latency, "high": 11 / latency}
    return {
        "ratio": round(10 / latency, 2),
        "accuracy": accuracy,
        "top5": 0.99,
        "images": 1000,
        "parameters": size // 4,
        "macs": size,
        "file_bytes": size,
        "deflated_bytes": size // 2,
        "memory_mb": 1.5,
        "peak_memory_mb": 2.5,
        "throughput": 250.0,
        "switch_ms": 2.0,
        "latency_ms": {"1": figures, "16": {**figures, "p50": 4 * latency, "noisy": False}},
        "speedup": {"1": speedup, "16": {**speedup, "high": 12 / latency}},
        "providers": {"Other": {"latency_ms": {"1": figures}, "speedup": {"1": speedup}, "memory_mb": 7.0}},
    }


PROFILE: dict[str, Any] = {
    "format": 1,
    "machine": {
        "processor": "A <processor>", "cores": 2, "onnxruntime": "1.32", "threads": 1, "date": "2024-05-06",
        "providers": ["CPUExecutionProvider", "Other"],
    },
    "dense": "dense",
    "baseline": {"name": "dense, BatchNorm fused"},
    "variants": {
        "dense": _entry(0.95, 10.0, 4_000_000),
        "half": _entry(0.93, 6.0, 900_000),
        "worse": _entry(0.90, 7.0, 950_000, noisy=True),
        "tiny": _entry(0.85, 2.0, 30_000),
    },
}  # fmt: skip


def _run(p95: list[float | None], variants: list[str], switched: list[list[Any]]) -> dict[str, Any]:
    rows = [
        {
            "seconds": second, "load": 0.5, "requests_per_second": 10.0 * second, "p50_ms": 1.0, "p95_ms": ms,
            "variant": name, "accuracy": 0.9,
        }
        for second, (ms, name) in enumerate(zip(p95, variants, strict=True))
    ]  # fmt: skip
    latency = {"p50": 1.0, "p95": 50.0, "p99": 90.0}
    return {
        "requests": 60, "failed": 0, "within_objective": 0.75, "latency_ms": latency, "accuracy": 0.91,
        "switches": len(switched), "switched": switched, "intervals": rows,
    }  # fmt: skip


REPLAY: dict[str, Any] = {
    "trace": "ramp", "duration_s": 4.0, "variants": ["tiny", "half"], "objective_ms": 40.0,
    "largest_serves_per_second": 25.0, "figures": {"within_of_smallest": 0.9, "accuracy_gain": 0.5},
    "runs": {
        "policy": _run([1.0, None, 30.0, 45.0], ["half", "half", "tiny", "tiny"], [[2.25, "tiny"]]),
        "smallest": _run([1.0, 1.0, 1.0, 1.0], ["tiny"] * 4, []),
        "largest": _run([2.0, 20.0, 200.0, 900.0], ["half"] * 4, []),
    },
}  # fmt: skip


EVIDENCE = Evidence(
    title="A & B",
    profile=Profile.from_dict(PROFILE),
    dropped={"worse": "half is nowhere worse"},
    optimal=("dense", "half", "tiny"),
    prunings={
        "half": Pruning([Layer("conv,1", 64, 40), Layer("gone", 32, 0)], ["t: 2 channel(s), tied"]),
        "tiny": Pruning([Layer("conv,1", 64, 8), Layer("gone", 32, 4)]),
    },
    replay=REPLAY,
    missing=["nothing else"],
)


class Links(HTMLParser):
    """Collects the CSV downloads and whatever would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.csv: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        target = found.get("href") or found.get("src") or ""
        if "download" in found:
            text = unquote(target.partition(",")[2])
            self.csv[str(found["download"])] = list(csv.reader(io.StringIO(text)))
        elif target and not target.startswith(("#", "data:")):
            self.fetched.append(target)


def _by_first(table: list[list[str]]) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
