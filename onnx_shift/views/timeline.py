"""Drawing a replay over time."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_shift.files import atomic_path

if TYPE_CHECKING:
    from onnx_shift.runtime.replay import Moment, Timeline

_COLOURS = {"policy": "#1f6f8b", "smallest": "#999999", "largest": "#d1495b"}
_LABELS = {"policy": "switching", "smallest": "smallest always", "largest": "largest always"}


def can_draw() -> bool:
    """Whether matplotlib, of the extra onnx-shift[report], is there."""
    return find_spec("matplotlib") is not None


def write_timeline_png(timeline: "Timeline", path: Path) -> None:
    """Draw load, latency, active variant and accuracy of `timeline` over time into a PNG at `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    load, latency, active, accuracy = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": [2, 3, 2, 2]})
    seconds = [row["seconds"] for row in timeline.rows("policy")]
    load.step(seconds, timeline.trace.rates(timeline.capacity), where="post", color="black")
    load.axhline(timeline.capacity, color=_COLOURS["largest"], linestyle=":", label="the largest variant serves")
    load.set_ylabel("requests per second")
    for name, colour in _COLOURS.items():
        rows = timeline.rows(name)
        latency.plot(seconds, _column(rows, "p95_ms"), color=colour, label=_LABELS[name])
        if timeline.accuracies:
            accuracy.plot(seconds, _column(rows, "accuracy"), color=colour)
    latency.axhline(timeline.objective_ms, color="black", linestyle=":", label="objective")
    latency.set_yscale("log")
    latency.set_ylabel("p95 of the latency, ms")
    _draw_active(active, timeline)
    accuracy.set_ylabel("accuracy served")
    accuracy.set_xlabel(f"seconds of the trace {timeline.trace.name}")
    for axes in (load, latency):
        axes.legend(fontsize="small", loc="upper left")
    for axes in (load, latency, active, accuracy):
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _column(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [float("nan") if row[key] is None else row[key] for row in rows]


def _draw_active(axes: Any, timeline: "Timeline") -> None:
    run = timeline.runs["policy"]
    if run.arrived_s.size:
        axes.step(run.arrived_s, run.variant, where="post", color=_COLOURS["policy"])
    axes.set_yticks(range(len(timeline.variants)), timeline.variants)
    axes.set_ylabel("active variant")


def moment_line(moment: "Moment") -> str:
    """Return what to show of a running replay, in one line."""
    return (
        f"{moment.run}: {moment.time_s:5.1f} of {moment.duration_s:g} s, "
        f"{moment.requests_per_second:6.0f} requests/s, p95 {moment.p95_ms:6.1f} ms, "
        f"{moment.waiting:4d} waiting, {moment.active}"
    )
