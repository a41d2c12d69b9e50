"""What the command `replay` needs around the replay itself: its options, and its result as a table."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from onnx_shift.errors import OnnxShiftError
from onnx_shift.views.tables import show_share

if TYPE_CHECKING:
    from onnx_shift.runtime.replay import Timeline
    from onnx_shift.runtime.trace import Trace


def replay_trace(
    text: str, duration_s: float, *, load: float | None = None, cv: float | None = None, seed: int = 0
) -> "Trace":
    """Return the trace of that name, else the one in the CSV file. Raises TraceError."""
    from onnx_shift.runtime.trace import RANDOM, SHAPES, builtin_trace, random_trace, read_trace

    if text in RANDOM:
        return random_trace(text, duration_s, load=0.5 if load is None else load, cv=cv, seed=seed)
    if cv is not None:
        raise OnnxShiftError(f"--cv {cv:g}: belongs to --trace gamma and bursty, not {text}")
    is_file = text not in SHAPES and (Path(text).suffix or Path(text).exists())
    if is_file:
        return read_trace(text, duration_s=duration_s, load=load)
    if load is not None:
        raise OnnxShiftError(f"--load {load:g}: belongs to --trace {', '.join(RANDOM)} and to invocations, not {text}")
    return builtin_trace(text, duration_s)


_HEADINGS = (
    "served by", "requests", "SLO attainment", "p50 ms", "p95 ms", "p99 ms", "mean accuracy", "largest drop", "switches"
)  # fmt: skip


def timeline_table(timeline: "Timeline") -> Table:
    """Return one row per way of serving, and the two figures of the policy below."""
    table = Table(box=None, pad_edge=False, caption=_caption(timeline), caption_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "served by" else "right")
    for name in timeline.runs:
        row = timeline.summary(name)
        latency = (f"{row['latency_ms'][key]:.1f}" for key in ("p50", "p95", "p99"))
        accuracy = (
            "–" if row[key] is None else show_share(row[key])
            for key in ("mean_accuracy_served", "largest_accuracy_drop")
        )
        share = show_share(row["within_objective"])
        table.add_row(name, str(row["requests"]), share, *latency, *accuracy, str(row["switches"]))
    return table


def _caption(timeline: "Timeline") -> str:
    figures = timeline.figures()
    lines = [
        f"SLO attainment: answered within {timeline.objective_ms:g} ms; "
        f"the largest variant serves {timeline.capacity:.0f} requests per second",
    ]
    if not timeline.runs["policy"].arrived_s.size:
        return "\n".join([*lines, "no request came"])
    lines.append(
        f"the policy answers {show_share(figures['within_of_smallest'] or 0)} of what the smallest answers in time"
    )
    if figures["accuracy_gain"] is not None:
        lines.append(
            f"and reaches {show_share(figures['accuracy_gain'])} of the clairvoyant's gain in accuracy over it"
        )
    return "\n".join(lines)
