"""What the command `replay` needs around the replay itself: its options, and its result as a table."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import import_named
from onnx_shift.views.tables import show_share

if TYPE_CHECKING:
    from onnx_shift.runtime.load import Policy
    from onnx_shift.runtime.replay import Timeline
    from onnx_shift.runtime.trace import Trace


def replay_trace(text: str, duration_s: float) -> "Trace":
    """Return the built-in trace of that name, else the one in the CSV file. Raises TraceError."""
    from onnx_shift.runtime.trace import SHAPES, builtin_trace, read_trace

    is_file = Path(text).suffix or Path(text).exists()
    return read_trace(text) if text not in SHAPES and is_file else builtin_trace(text, duration_s)


def policy_maker(text: str) -> "Callable[[float], Policy]":
    """Return the function of the objective in milliseconds that makes the policy of that name, or the one at
    package.module:function, which may lie in the working folder."""
    from onnx_shift.runtime.policy import LatencyObjective, QueriesPerSecond

    named: dict[str, Callable[[float], Policy]] = {
        "latency": lambda objective_ms: LatencyObjective(p95_ms=objective_ms),
        "qps": lambda objective_ms: QueriesPerSecond(),
    }
    if text in named:
        return named[text]
    module, colon, function = text.partition(":")
    if not (module and colon and function):
        raise OnnxShiftError(f"--policy {text}: not one of {', '.join(named)}, and no package.module:function")
    found: Callable[[float], Policy] = import_named(text, "--policy")

    def make(objective_ms: float) -> "Policy":
        try:
            return found(objective_ms)
        except Exception as error:  # it is anybody's code
            raise OnnxShiftError(f"--policy {text}: makes no policy ({error!r})") from error

    return make


def timeline_table(timeline: "Timeline") -> Table:
    """Return one row per way of serving, and the two figures of the policy below."""
    table = Table(box=None, pad_edge=False, caption=_caption(timeline), caption_justify="left")
    for heading in ("served by", "requests", "in time", "p50 ms", "p95 ms", "p99 ms", "accuracy", "switches"):
        table.add_column(heading, justify="left" if heading == "served by" else "right")
    for name in timeline.runs:
        row = timeline.summary(name)
        latency = (f"{row['latency_ms'][key]:.1f}" for key in ("p50", "p95", "p99"))
        accuracy = "–" if row["accuracy"] is None else show_share(row["accuracy"])
        share = show_share(row["within_objective"])
        table.add_row(name, str(row["requests"]), share, *latency, accuracy, str(row["switches"]))
    return table


def _caption(timeline: "Timeline") -> str:
    figures = timeline.figures()
    lines = [
        f"in time: within {timeline.objective_ms:g} ms; "
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
