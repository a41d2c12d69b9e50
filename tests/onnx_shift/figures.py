"""Figures as the demo makes them."""

from typing import Any


def _entry(ratio: float, accuracy: float, latency: float, size: int) -> dict[str, Any]:
    return {
        "ratio": ratio, "accuracy": accuracy, "parameters": size // 4, "file_bytes": size, "switch_ms": 2.5,
        "deflated_bytes": size // 3, "latency_ms": {"1": {"p50": latency, "noisy": ratio == 4}},
        "speedup": {"1": {"median": 2 / latency, "low": 1.0, "high": 4.0}},
    }  # fmt: skip


def _run(accuracy: float, within: float) -> dict[str, Any]:
    rows = [{"seconds": s, "requests_per_second": 9.0, "p95_ms": 5.0, "variant": "b"} for s in range(3)]
    return {
        "accuracy": accuracy,
        "within_objective": within,
        "intervals": rows,
        "switched": [],
        "switches": 1,
    }


FIGURES: dict[str, Any] = {
    "profile": {
        "dense": "a",
        "variants": {
            "a": _entry(1, 0.99, 2.0, 1_000_000), "b": _entry(2, 0.985, 1.0, 300_000), "c": _entry(4, 0.9, 0.5, 20_000),
        },
    },
    "dropped": {"a": "b is nowhere worse"},
    "equality": {"models": 3, "largest_difference": 6.4e-7, "images": 359, "changed": 0},
    "memory": {"all_sessions_mb": 8.25, "portfolio_mb": {"b": 5.0, "c": 4.0}},
    "replay": {
        "variants": ["c", "b"], "objective_ms": 10.0, "largest_serves_per_second": 8.0,
        "runs": {"policy": _run(0.98, 0.999), "smallest": _run(0.9, 1.0), "largest": _run(0.985, 0.6)},
    },
}  # fmt: skip
