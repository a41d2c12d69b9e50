"""The report as one HTML page that needs no network: charts, tables with CSV, style and script inside."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_shift.report.charts import Axis, Point, cost_axis, linear_axis, pareto_front, scatter
from onnx_shift.report.evidence import Evidence, Pruning
from onnx_shift.report.markup import Column, download, folded, folded_table, table
from onnx_shift.report.replay_section import replay_section
from onnx_shift.report.training_section import training_section
from onnx_shift.views.tables import (
    show_accuracy,
    show_bytes,
    show_count,
    show_latency,
    show_number,
    show_range,
    show_share,
)

if TYPE_CHECKING:
    from onnx_shift.portfolio.profile import Latency, Machine, Profile, Speedup, Timing, Variant


def render_page(evidence: Evidence) -> str:
    """Return the whole page as HTML."""
    sections = []
    if evidence.profile is not None:
        sections.append(_tiles(evidence))
        sections.append(_trade_offs(evidence))
        sections.append(_variants(evidence))
    if evidence.levels:
        sections.append(training_section(evidence.levels))
    if evidence.prunings:
        sections.append(_layers(evidence.prunings))
    if evidence.replay:
        sections.append(replay_section(evidence.replay))
    if evidence.missing:
        items = "".join(f"<li>{escape(line)}</li>" for line in evidence.missing)
        sections.append(f'<section aria-labelledby="missing"><h2 id="missing">Not shown</h2><ul>{items}</ul></section>')
    style, script = (Path(__file__).with_name(f"report.{kind}").read_text() for kind in ("css", "js"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(evidence.title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<div><h1>{escape(evidence.title)}</h1>{_origin(evidence)}</div>
<button id="theme" type="button" hidden>Dark theme</button>
</header>
<main id="content">
{"".join(sections)}
</main>
<footer><p>Written by onnx-shift. The page holds all its figures and loads nothing.</p></footer>
<div id="tip" role="tooltip" hidden></div>
<script>{script}</script>
</body>
</html>
"""


def _origin(evidence: Evidence) -> str:
    lines = [*_measured_on(evidence.profile.machine if evidence.profile is not None else None), *evidence.origin]
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _measured_on(machine: "Machine | None") -> list[str]:
    if machine is None:
        return []
    date = f"{machine.date} " if machine.date else ""
    return [
        f"Measured {date}on {machine.processor}, {machine.cores} cores, with onnxruntime "
        f"{machine.onnxruntime}, {', '.join(machine.providers)}, {show_number(machine.threads, 'thread')}."
    ]


# --- what there is to choose from --------------------------------------------------------------------------


def _tiles(evidence: Evidence) -> str:
    assert evidence.profile is not None
    variants = evidence.profile.variants
    kept = {name: entry for name, entry in variants.items() if evidence.reason(name) is None}
    if evidence.dropped is None:
        facts = [(str(len(variants)), "variant" if len(variants) == 1 else "variants")]
    else:
        facts = [(f"{len(kept)} of {len(variants)}", "variants worth shipping")]
    largest = max(entry.file_bytes for entry in variants.values())
    smaller = f"{largest / min(entry.file_bytes for entry in kept.values()):.3g}"
    if smaller != "1":
        facts.append((f"{smaller}×", "smaller, the smallest against the largest"))
    speeds = [found.median for entry in kept.values() if (found := entry.timing.compared)]
    if speeds:
        facts.append((f"{max(speeds):.2f}×", "as fast as dense, the fastest of them"))
    accuracies = [entry.accuracy for entry in kept.values() if entry.accuracy is not None]
    if accuracies:
        low, high = f"{100 * min(accuracies):.1f}", f"{100 * max(accuracies):.1f}"
        which = "accuracy" if evidence.dropped is None else "accuracy of the variants kept"
        facts.append((f"{high}%" if low == high else f"{low}–{high}%", which))
    switches = sorted(entry.switch_ms for entry in kept.values() if entry.switch_ms is not None)
    if switches:
        facts.append((f"{switches[len(switches) // 2]:.2g} ms", "median cost of a switch"))
    items = "".join(f"<li><b>{escape(figure)}</b><span>{escape(words)}</span></li>" for figure, words in facts)
    return f'<ul class="tiles" aria-label="In short">{items}</ul>'


def _trade_offs(evidence: Evidence) -> str:
    assert evidence.profile is not None
    variants = evidence.profile.variants
    if not all(entry.accuracy is not None for entry in variants.values()):
        return ""
    latencies = {name: entry.timing.median_ms for name, entry in variants.items()}
    batch = next(iter(variants.values())).timing.smallest_batch
    figures = [
        _trade_off(evidence, "latency", f"median latency in ms, batch {batch}", latencies, "{:.3g}".format),
        _trade_off(
            evidence,
            "size",
            "file size",
            {name: float(entry.file_bytes) for name, entry in variants.items()},
            show_bytes,
        ),
    ]
    return f'<div class="pair">{"".join(figures)}</div>'


def _trade_off(evidence: Evidence, key: str, axis: str, costs: Mapping[str, float], show: Any) -> str:
    assert evidence.profile is not None
    variants = evidence.profile.variants
    accuracy = {name: entry.accuracy or 0.0 for name, entry in variants.items()}
    points = [
        Point(
            name,
            costs[name],
            accuracy[name],
            _words(name, entry, evidence.reason(name)),
            dense=name == evidence.profile.dense,
            dropped=evidence.reason(name) is not None,
        )
        for name, entry in variants.items()
    ]
    chart = scatter(
        f"Accuracy against {axis}; each point is a variant",
        cost_axis(axis, list(costs.values()), show),
        _accuracy_axis(list(accuracy.values())),
        points,
        pareto_front(costs, accuracy),
    )
    columns = [
        Column("variant", "variant", lambda name: name),
        Column("accuracy", "accuracy", lambda name: accuracy[name], text=lambda name: show_accuracy(variants[name])),
        Column(axis, "latency_ms" if key == "latency" else "file_bytes", lambda name: costs[name], show),
    ]
    figures = folded_table(f"accuracy-{key}", f"accuracy against {key}", columns, list(variants))
    return (
        f'<section aria-labelledby="{key}"><h2 id="{key}">Accuracy against {key}</h2>'
        f"<figure>{chart}{_legend(evidence, points)}{figures}</figure></section>"
    )


def _accuracy_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    spare = max(0.02 - (high - low), 0) / 2  # points that are all alike need some room as well
    low, high = max(low - spare, 0.0), min(high + spare + (high - low) * 0.02, 1.0)
    digits = 0 if high - low > 0.05 else 1
    return linear_axis("", [low, high], lambda value: f"{value:.{digits}%}")


def _words(name: str, entry: "Variant", reason: str | None) -> str:
    figures = [f"{show_accuracy(entry)} accurate", show_bytes(entry.file_bytes)]
    figures += [f"{show_latency(latency)} ms at batch {batch}" for batch, latency in entry.timing.latency.items()]
    return f"{name}: {', '.join(figures)}" + (f"\nleft out: {reason}" if reason else "")


def _legend(evidence: Evidence, points: Sequence[Point]) -> str:
    """What the marks mean, of those that there are."""
    plain = "variant" if evidence.dropped is None else "kept"
    items = []
    for dense, dropped in sorted({(point.dense, point.dropped) for point in points}):
        shape = '<polygon points="11,1 18,8 11,15 4,8"/>' if dense else '<circle cx="11" cy="8" r="5"/>'
        words = "dense" + ", left out" * dropped if dense else "left out" if dropped else plain
        items.append((Point("", 0, 0, "", dense, dropped).kind, shape, words))
    items.append(("", '<polyline class="line front" points="0,8 22,8"/>', "Pareto front"))
    drawn = "".join(
        f'<li class="{kind}"><svg viewBox="0 0 22 16" aria-hidden="true">{shape}</svg>{words}</li>'
        for kind, shape, words in items
    )
    return f'<ul class="legend">{drawn}</ul>'


def _variants(evidence: Evidence) -> str:
    assert evidence.profile is not None
    columns = [
        Column("variant", "variant", lambda row: row.name),
        Column("verdict", "verdict", lambda row: _verdict(evidence, row.name), words=True),
        Column("ratio", "ratio", lambda row: row.variant.ratio, "{:.3g}".format),
        Column("accuracy", "accuracy", lambda row: row.variant.accuracy, text=lambda row: show_accuracy(row.variant)),
        Column("", "accuracy_claimed", lambda row: str(row.variant.accuracy_claimed).lower(), in_table=False),
        Column("parameters", "parameters", lambda row: row.variant.parameters, show_count),
        Column("file", "file_bytes", lambda row: row.variant.file_bytes, show_bytes),
        Column("memory", "memory_mb", lambda row: row.timing.memory_mb, "{:.3g} MB".format),
        *_latency_columns(),
        Column("switch", "switch_ms", lambda row: row.variant.switch_ms, "{:.2g} ms".format),
    ]
    further = [
        columns[0],
        Column("top-5", "top5", lambda row: row.variant.top5, show_share),
        Column("images", "images", lambda row: row.variant.images, "{:,}".format),
        Column("multiply–accumulates", "macs", lambda row: row.variant.macs, show_count),
        Column("deflated", "deflated_bytes", lambda row: row.variant.deflated_bytes, show_bytes),
        Column("peak memory", "peak_memory_mb", lambda row: row.timing.peak_memory_mb, "{:.3g} MB".format),
        Column("images/s", "throughput", lambda row: row.timing.images_per_second, "{:,.0f}".format),
    ]
    rows = [
        _Row(name, entry.timing, entry.timing.smallest_batch, variant=entry)
        for name, entry in evidence.profile.variants.items()
    ]
    timed = list(_timings(evidence.profile))
    title = "Variants" if evidence.dropped is None else "What stayed, and why"
    return (
        f'<section aria-labelledby="variants"><h2 id="variants">{title}</h2>'
        f'<p class="lead">{escape(_remarks(evidence, timed))}</p>'
        f"{table('variants', columns, rows)}{download('variants', [*columns, *further[1:]], rows)}"
        f"{folded('further figures of the variants', table('further figures of the variants', further, rows))}"
        f"{folded_table('latencies', 'latency by batch and provider', _timing_columns(timed), timed)}</section>"
    )


def _remarks(evidence: Evidence, timed: "Sequence[_Row]") -> str:
    assert evidence.profile is not None
    baseline = evidence.profile.baseline.name if evidence.profile.baseline else "the dense model"
    batch = next(iter(evidence.profile.variants.values())).timing.smallest_batch
    remarks = [
        f"Latency at batch {batch}; speed-up against {baseline}: the median of interleaved rounds, in brackets "
        "the lowest and the highest of them."
    ]
    if evidence.refusal:
        remarks.insert(0, f"None was chosen: {evidence.refusal}.")
    elif evidence.dropped is not None:
        remarks.insert(0, "Verdicts are those of onnx-shift pack without options.")
    if any(entry.accuracy_claimed for entry in evidence.profile.variants.values()):
        remarks.append("* marks an accuracy that is claimed, not measured.")
    if any(row.latency.noisy for row in timed):
        remarks.append("~ marks what stayed noisy when it was measured again.")
    return " ".join(remarks)


def _verdict(evidence: Evidence, name: str) -> str | None:
    if evidence.dropped is None:
        return "Pareto-optimal" if name in evidence.optimal else None
    if reason := evidence.reason(name):
        return f"left out: {reason}"
    return "kept, Pareto-optimal" if name in evidence.optimal else "kept"


@dataclass(frozen=True)
class _Row:
    """What one model takes at one batch size on one provider."""

    name: str
    timing: "Timing"
    batch: int
    provider: str = ""
    variant: "Variant | None" = None

    @property
    def latency(self) -> "Latency":
        return self.timing.latency[self.batch]

    @property
    def speedup(self) -> "Speedup | None":
        return self.timing.speedup.get(self.batch)


def _timings(profile: "Profile") -> Iterator[_Row]:
    """One row per model, provider and batch; the first provider's figures are the model's own."""
    first = profile.machine.providers[0] if profile.machine else "first"
    models: dict[str, Mapping[str, Timing]] = {}
    if profile.baseline is not None and profile.baseline.timing is not None:
        models[profile.baseline.name] = {first: profile.baseline.timing, **profile.baseline.providers}
    models |= {name: {first: entry.timing, **entry.providers} for name, entry in profile.variants.items()}
    for name, timings in models.items():
        for provider, timing in timings.items():
            for batch in timing.latency:
                yield _Row(name, timing, batch, provider)


def _timing_columns(rows: "Sequence[_Row]") -> list[Column]:
    several = len({row.provider for row in rows}) > 1
    return [
        Column("model", "variant", lambda row: row.name),
        Column("provider", "provider", lambda row: row.provider, in_table=several),
        Column("batch", "batch", lambda row: row.batch),
        *_latency_columns(),
        Column("95 %", "p95_ms", lambda row: row.latency.p95_ms, "{:.3g} ms".format),
        Column("99 %", "p99_ms", lambda row: row.latency.p99_ms, "{:.3g} ms".format),
        Column("images/s", "throughput", lambda row: 1000 * row.batch / row.latency.p50_ms, "{:,.0f}".format),
        Column("memory", "memory_mb", lambda row: row.timing.memory_mb, "{:.3g} MB".format, in_table=several),
        Column("peak memory", "peak_memory_mb", lambda row: row.timing.peak_memory_mb, in_table=False),
    ]


def _latency_columns() -> list[Column]:
    """Median and speed-up, each in one cell with what tells how sure it is; the CSV has these apart."""
    return [
        Column(
            "latency",
            "latency_ms",
            lambda row: row.latency.p50_ms,
            text=lambda row: f"{show_latency(row.latency)} ms",
        ),
        Column("noisy", "noisy", lambda row: "yes" if row.latency.noisy else "no", in_table=False),
        Column(
            "speed-up",
            "speedup",
            lambda row: row.speedup and row.speedup.median,
            text=lambda row: f"{row.speedup.median:.2f}× ({show_range(row.speedup)})",
        ),
        Column("from", "speedup_low", lambda row: row.speedup and row.speedup.low, in_table=False),
        Column("to", "speedup_high", lambda row: row.speedup and row.speedup.high, in_table=False),
    ]


# --- layers and switching ----------------------------------------------------------------------------------


def _layers(prunings: Mapping[str, Pruning]) -> str:
    last = list(prunings)[-1]
    options = "".join(
        f'<option value="layers-{n}"{" selected" if name == last else ""}>{escape(name)}</option>'
        for n, name in enumerate(prunings)
    )
    panels = "".join(_layer_panel(f"layers-{n}", name, pruning) for n, (name, pruning) in enumerate(prunings.items()))
    columns = [
        Column("variant", "variant", lambda row: row[0]),
        Column("layer", "layer", lambda row: row[1].name, words=True),
        Column("channels before", "channels_before", lambda row: row[1].before),
        Column("channels after", "channels_after", lambda row: row[1].after),
    ]
    rows = [(name, layer) for name, pruning in prunings.items() for layer in pruning.layers]
    return (
        '<section aria-labelledby="channels"><h2 id="channels">Channels per layer, before and after</h2>'
        '<p hidden><label for="variant">Variant </label>'
        f'<select id="variant" data-panels="layers">{options}</select></p>{panels}'
        f"{folded_table('layers', 'channels per layer', columns, rows)}</section>"
    )


def _layer_panel(key: str, name: str, pruning: Pruning) -> str:
    widest = max(layer.before for layer in pruning.layers)
    items = "".join(
        f'<li><code title="{escape(layer.name, quote=True)}">{escape(layer.name)}</code>'
        f'<div class="bar" aria-hidden="true"><b style="width:{100 * layer.before / widest:.1f}%"></b>'
        f'<i style="width:{100 * layer.after / widest:.1f}%"></i></div>'
        f"<span>{layer.after} of {layer.before}</span></li>"
        for layer in pruning.layers
        if layer.before
    )
    before, after = (sum(getattr(layer, key) for layer in pruning.layers) for key in ("before", "after"))
    notes = "".join(f"<li>{escape(line)}</li>" for line in pruning.kept)
    stayed = (
        f"<details><summary>What stayed in {escape(name)} although empty, and why</summary><ul>{notes}</ul></details>"
        if notes
        else ""
    )
    return (
        f'<div id="{key}" data-panel="layers" role="group" aria-label="{escape(name, quote=True)}">'
        f'<p class="lead">{escape(name)}: {after} of {before} channels stay.</p>'
        f'<ol class="layers">{items}</ol>{stayed}</div>'
    )
