"""The demo's own figures and picture: what a newcomer sees after `make demo`."""

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from onnx_shift.demo import run_demo
from onnx_shift.portfolio.profile import Profile, Variant
from onnx_shift.views.picture import draw_demo

TITLE = "The demo: handwritten digits, from training to switching"
MINUTES = 2.5
PICTURE_INCHES = (10, 8)


def measure(work: Path) -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    started = time.monotonic()
    # A folder of its own each time: how long the training takes is one of the figures.
    found = run_demo(work / now.strftime("%Y%m%d-%H%M%S"), Console(stderr=True), date=now.strftime("%Y-%m-%d"))
    variants = Profile.from_dict(found["profile"]).variants
    minutes = (time.monotonic() - started) / 60
    rows = [_row(name, entry, name not in found["dropped"]) for name, entry in variants.items()]
    kept = [row for row in rows if row["packed"]]
    equality, memory, runs = found["equality"], found["memory"], found["replay"]["runs"]
    most = max(memory["portfolio_mb"].values())
    figures = {
        "minutes": minutes,
        "largest_difference": equality["largest_difference"],
        "changed_predictions": equality["changed"],
        "smaller": max(row["file, kB"] for row in rows) / min(row["file, kB"] for row in kept),
        "faster": max(row["speed-up"] for row in kept),
        "slowest_switch_ms": max(row["switch, ms"] for row in kept),
        "all_sessions_mb": memory["all_sessions_mb"],
        "portfolio_mb": most,
        "memory_ratio": memory["all_sessions_mb"] / most,
        "in_time_switching": runs["policy"]["within_objective"],
        "in_time_largest": runs["largest"]["within_objective"],
        "accuracy_switching": runs["policy"]["accuracy"],
        "accuracy_smallest": runs["smallest"]["accuracy"],
        "search_efficiency": found["efficiency"],
    }
    notes = [
        f"All pruned models equal their sparse ones: largest difference {equality['largest_difference']:.0e} of the "
        f"output's scale, {equality['changed']} of {equality['images']} test images classified otherwise.",
        f"The portfolio with its largest variant active takes {most:.1f} MB, a session of each of its variants "
        f"{memory['all_sessions_mb']:.1f} MB (resident, each measured in a process of its own).",
        f"Under a day's load in ten seconds, switching answers {figures['in_time_switching']:.1%} of the requests in "
        f"time at {figures['accuracy_switching']:.2%} accuracy; the largest variant alone "
        f"{figures['in_time_largest']:.1%}, the smallest alone answers at {figures['accuracy_smallest']:.2%}.",
        "The images are 8×8 and one inference takes microseconds, much of it onnxruntime's fixed cost per call: "
        "larger networks gain more.",
    ]
    return {"rows": rows, "figures": figures, "notes": notes, "details": found}


def _row(name: str, entry: Variant, packed: bool) -> dict[str, Any]:
    return {
        "variant": name,
        "ratio": round(entry.ratio or 1),
        "accuracy": f"{entry.accuracy:.2%}",
        "parameters": entry.parameters,
        "file, kB": entry.file_bytes / 1e3,
        "deflated, kB": (entry.deflated_bytes or 0) / 1e3,
        "latency, ms": entry.timing.median_ms,
        "speed-up": entry.timing.speedup[1].median,
        "speed-up, batch 16": entry.timing.speedup[16].median,
        "switch, ms": entry.switch_ms,
        "packed": "yes" if packed else "",
    }


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    draw_demo(result["details"], figure)
