"""The report's section on a replay: the load, how fast requests were answered, and which variant served."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from onnx_shift.report.charts import Axis, Line, cost_axis, left_margin, linear_axis, lines
from onnx_shift.report.markup import Column, download, folded_table, table
from onnx_shift.views.tables import show_share

Entry = Mapping[str, Any]

_WORDS = {
    "policy": "switching by policy",
    "largest": "largest always",
    "smallest": "smallest always",
    "clairvoyant": "knowing the load beforehand",
}
_DRAWN = ("largest", "smallest", "policy")  # the last is drawn on top


def replay_section(replay: Entry) -> str:
    """Return the section for what `onnx-shift replay` wrote to replay.json."""
    runs: Mapping[str, Entry] = replay["runs"]
    left = left_margin(replay["variants"])  # the same for all, so that moments lie below each other
    charts = f"{_load(replay, left)}{_latency(replay, left)}{_active(replay, left)}"
    return (
        '<section aria-labelledby="replay"><h2 id="replay">Switching under load</h2>'
        f'<p class="lead">{escape(_summary(replay))}</p>'
        f"{_legend([name for name in _DRAWN if name in runs])}"
        f"<figure>{charts}</figure>"
        f"{_runs_table(runs)}{_interval_table(runs)}{_switch_table(runs['policy'])}</section>"
    )


def _summary(replay: Entry) -> str:
    policy, figures = replay["runs"]["policy"], replay["figures"]
    text = (
        f"Trace {replay['trace']}, {replay['duration_s']:g} seconds, {policy['requests']:,} requests; in time means "
        f"within {replay['objective_ms']:g} ms. Switching answered {show_share(figures['within_of_smallest'])} of "
        f"what the smallest variant answers in time, with {policy['switches']} switch"
        f"{'' if policy['switches'] == 1 else 'es'}"
    )
    gain = figures.get("accuracy_gain")
    if gain is not None:
        share = "all" if gain >= 1 else show_share(gain)
        text += f", and reached {share} of the accuracy that knowing the load beforehand would gain over it"
    return text + "."


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 22 16" aria-hidden="true"><polyline class="line {name}" points="0,8 22,8"/></svg>'
        f"{_WORDS[name]}</li>"
        for name in names
    )
    return f'<ul class="legend">{items}</ul>'


def _load(replay: Entry, left: int) -> str:
    rows = replay["runs"]["policy"]["intervals"]
    asked = [(row["seconds"], row["requests_per_second"]) for row in rows]
    capacity = replay["largest_serves_per_second"]
    top = max([rate for _, rate in asked] + [capacity])
    series = [
        Line([(0.0, capacity), (replay["duration_s"], capacity)], "limit"),
        Line(asked, "load", steps=True),
    ]
    y = linear_axis("", [0.0, top], "{:,.0f}".format)
    title = f"Requests per second that came; dotted: what the largest variant serves, {capacity:,.0f}"
    return f"<h3>{title}</h3>" + lines(title, _time(replay), y, series, left=left)


def _latency(replay: Entry, left: int) -> str:
    runs = {name: _series(replay["runs"][name], "p95_ms") for name in _DRAWN if name in replay["runs"]}
    values = [value for points in runs.values() for _, value in points if value > 0]
    objective = replay["objective_ms"]
    series = [
        Line([(0.0, objective), (replay["duration_s"], objective)], "limit"),
        *(Line(points, name) for name, points in runs.items()),
    ]
    title = f"95th percentile of the latency in ms; dotted: the objective, {objective:g}"
    y = cost_axis("", [*values, objective], "{:g}".format)
    return f"<h3>{title}</h3>" + lines(title, _time(replay), y, series, left=left)


def _active(replay: Entry, left: int) -> str:
    names = replay["variants"]
    policy = replay["runs"]["policy"]
    served = [(row["seconds"], row["variant"]) for row in policy["intervals"] if row.get("variant")]
    points = [(seconds, float(names.index(name))) for seconds, name in served]
    moments = [(seconds, f"{seconds:.2f} s: switched to {name}") for seconds, name in policy["switched"]]
    series = [Line(points, "policy", steps=True)]
    title = "Variant that served, smallest below; dots: switches"
    x = _time(replay, "seconds")
    return f"<h3>{title}</h3>" + lines(title, x, _names_axis(names), series, moments, left=left)


def _names_axis(names: Sequence[str]) -> Axis:
    return Axis("", -0.5, len(names) - 0.5, [(float(index), name) for index, name in enumerate(names)])


def _time(replay: Entry, title: str = "") -> Axis:
    return linear_axis(title, [0.0, replay["duration_s"]], "{:g}".format)


def _series(run: Entry, key: str) -> list[tuple[float, float]]:
    return [(row["seconds"], row[key]) for row in run["intervals"] if row.get(key) is not None]


def _runs_table(runs: Mapping[str, Entry]) -> str:
    columns = [
        Column("served by", "served_by", lambda row: _WORDS.get(row[0], row[0])),
        Column("requests", "requests", lambda row: row[1]["requests"], "{:,}".format),
        Column("in time", "within_objective", lambda row: row[1]["within_objective"], show_share),
        Column("median", "p50_ms", lambda row: row[1]["latency_ms"]["p50"], "{:.3g} ms".format),
        Column("95 %", "p95_ms", lambda row: row[1]["latency_ms"]["p95"], "{:.3g} ms".format),
        Column("99 %", "p99_ms", lambda row: row[1]["latency_ms"]["p99"], "{:.3g} ms".format),
        Column("accuracy", "accuracy", lambda row: row[1].get("accuracy"), show_share),
        Column("switches", "switches", lambda row: row[1]["switches"]),
    ]
    rows = list(runs.items())
    return table("ways of serving", columns, rows) + download("replay", columns, rows)


def _interval_table(runs: Mapping[str, Entry]) -> str:
    """What the charts draw: the load, which variant served, and the latencies of every way that is drawn."""
    columns = [
        Column("second", "seconds", lambda row: row["seconds"], "{:.2f}".format),
        Column("requests/s", "requests_per_second", lambda row: row["requests_per_second"], "{:,.0f}".format),
        Column("variant", "variant", lambda row: row.get("variant")),
        Column("accuracy", "accuracy", lambda row: row.get("accuracy"), show_share),
    ]
    by_second = {name: {row["seconds"]: row for row in run["intervals"]} for name, run in runs.items()}
    for name in reversed(_DRAWN):
        if name in runs:
            columns += _interval_latency(name, by_second[name])
    return folded_table("timeline", "what the charts draw", columns, runs["policy"]["intervals"])


def _interval_latency(name: str, rows: Mapping[float, Entry]) -> list[Column]:
    def read(key: str) -> Callable[[Entry], float | None]:
        return lambda row: rows.get(row["seconds"], {}).get(key)

    show = "{:.3g}".format
    return [
        Column(f"{name}: median, ms", f"{name}_p50_ms", read("p50_ms"), show),
        Column(f"{name}: 95 %, ms", f"{name}_p95_ms", read("p95_ms"), show),
    ]


def _switch_table(policy: Entry) -> str:
    if not policy["switched"]:
        return ""
    columns = [
        Column("second", "seconds", lambda row: row[0], "{:.2f}".format),
        Column("switched to", "variant", lambda row: row[1]),
    ]
    return folded_table("switches", "switches of the policy", columns, policy["switched"])
