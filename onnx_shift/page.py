"""The report as one HTML page that needs no network: charts, tables with CSV, style and script inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from onnx_shift.charts import Axis, Point, cost_axis, linear_axis, scatter
from onnx_shift.markup import Column, download, folded_table, table
from onnx_shift.replay_section import replay_section
from onnx_shift.tables import show_bytes, show_count, show_latency, show_share

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """Output channels of one layer, before and after pruning."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Pruning:
    """What pruning did to one variant: its layers, and in words what stayed although it looked removable."""

    layers: Sequence[Layer]
    kept: Sequence[str] = ()


@dataclass(frozen=True)
class Evidence:
    """What a report may show; what is absent leaves its section out, and `missing` says how to get it."""

    title: str
    profile: Entry | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)  # variant -> reason
    optimal: Sequence[str] = ()
    prunings: Mapping[str, Pruning] = field(default_factory=dict)
    replay: Entry | None = None
    missing: Sequence[str] = ()


def render_page(evidence: Evidence) -> str:
    """Return the whole page as HTML."""
    sections = []
    if evidence.profile:
        sections.append(_tiles(evidence))
        sections.append(_trade_offs(evidence))
        sections.append(_variants(evidence))
    if evidence.prunings:
        sections.append(_layers(evidence.prunings))
    if evidence.replay:
        sections.append(replay_section(evidence.replay))
    if evidence.missing:
        items = "".join(f"<li>{escape(line)}</li>" for line in evidence.missing)
        sections.append(
            f'<section aria-labelledby="missing"><h2 id="missing">Not shown</h2><ul>{items}</ul></section>'
        )
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
<div><h1>{escape(evidence.title)}</h1>{_measured_on(evidence.profile)}</div>
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


def _measured_on(profile: Entry | None) -> str:
    if not profile or "machine" not in profile:
        return ""
    machine = profile["machine"]
    words = (
        f"Measured {machine['date']} on {machine['processor']}, {machine['cores']} cores, with onnxruntime "
        f"{machine['onnxruntime']}, {', '.join(machine['providers'])}, {machine['threads']} thread(s)."
    )
    return f"<p>{escape(words)}</p>"


# --- what there is to choose from --------------------------------------------------------------------------


def _tiles(evidence: Evidence) -> str:
    assert evidence.profile is not None
    variants = evidence.profile["variants"]
    kept = {name: entry for name, entry in variants.items() if name not in evidence.dropped}
    largest = max(entry["file_bytes"] for entry in variants.values())
    facts = [(f"{len(kept)} of {len(variants)}", "variants worth shipping")]
    small = min(kept.values(), key=lambda entry: entry["file_bytes"])
    facts.append((f"{largest / small['file_bytes']:.3g}×", "smaller, the smallest against the largest"))
    speedups = [
        next(iter(entry["speedup"].values()))["median"] for entry in kept.values() if entry.get("speedup")
    ]
    if speedups:
        facts.append((f"{max(speedups):.2f}×", "faster, the fastest against dense"))
    accuracies = [entry["accuracy"] for entry in kept.values() if entry.get("accuracy") is not None]
    if accuracies:
        facts.append((f"{100 * min(accuracies):.1f}–{max(accuracies):.1%}", "accuracy of the variants kept"))
    switches = sorted(entry["switch_ms"] for entry in kept.values() if entry.get("switch_ms") is not None)
    if switches:
        facts.append((f"{switches[len(switches) // 2]:.2g} ms", "median cost of a switch"))
    items = "".join(
        f"<li><b>{escape(figure)}</b><span>{escape(words)}</span></li>" for figure, words in facts
    )
    return f'<ul class="tiles" aria-label="In short">{items}</ul>'


def _trade_offs(evidence: Evidence) -> str:
    assert evidence.profile is not None
    variants: Mapping[str, Entry] = evidence.profile["variants"]
    if not all(entry.get("accuracy") is not None for entry in variants.values()):
        return ""
    latencies = {name: _first_latency(entry) for name, entry in variants.items()}
    batch = next(iter(next(iter(variants.values()))["latency_ms"]))
    figures = [
        _trade_off(evidence, "latency", f"median latency in ms, batch {batch}", latencies, "{:.3g}".format),
        _trade_off(
            evidence,
            "size",
            "file size",
            {name: float(entry["file_bytes"]) for name, entry in variants.items()},
            show_bytes,
        ),
    ]
    return f'<div class="pair">{"".join(figures)}</div>'


def _first_latency(entry: Entry) -> float:
    return float(next(iter(entry["latency_ms"].values()))["p50"])


def _trade_off(evidence: Evidence, key: str, axis: str, costs: Mapping[str, float], show: Any) -> str:
    assert evidence.profile is not None
    variants: Mapping[str, Entry] = evidence.profile["variants"]
    accuracy = {name: float(entry["accuracy"]) for name, entry in variants.items()}
    points = [
        Point(
            name,
            costs[name],
            accuracy[name],
            _kind(evidence, name),
            _words(name, entry, evidence.dropped.get(name)),
        )
        for name, entry in variants.items()
    ]
    front = [
        (costs[name], accuracy[name])
        for name in variants
        if not any(
            costs[other] <= costs[name]
            and accuracy[other] >= accuracy[name]
            and (costs[other], accuracy[other]) != (costs[name], accuracy[name])
            for other in variants
        )
    ]
    chart = scatter(
        f"Accuracy against {axis}; each point is a variant",
        cost_axis(axis, list(costs.values()), show),
        _accuracy_axis(list(accuracy.values())),
        points,
        front,
    )
    columns = [
        Column("variant", "variant", lambda name: name),
        Column("accuracy", "accuracy", lambda name: accuracy[name], show_share),
        Column(axis, "latency_ms" if key == "latency" else "file_bytes", lambda name: costs[name], show),
    ]
    folded = folded_table(f"accuracy-{key}", columns, list(variants))
    return (
        f'<section aria-labelledby="{key}"><h2 id="{key}">Accuracy against {key}</h2>'
        f"<figure>{chart}{_LEGEND}{folded}</figure></section>"
    )


def _accuracy_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    digits = 0 if high - low > 0.05 else 1
    return linear_axis("", [low, min(1.0, high + (high - low) * 0.02)], lambda value: f"{value:.{digits}%}")


def _kind(evidence: Evidence, name: str) -> str:
    assert evidence.profile is not None
    if name == evidence.profile.get("dense"):
        return "dense"
    return "dropped" if name in evidence.dropped else "kept"


def _words(name: str, entry: Entry, reason: str | None) -> str:
    figures = [f"{show_share(entry['accuracy'])} accurate", show_bytes(entry["file_bytes"])]
    figures += [
        f"{show_latency(latency)} ms at batch {batch}" for batch, latency in entry["latency_ms"].items()
    ]
    return f"{name}: {', '.join(figures)}" + (f"\nleft out: {reason}" if reason else "")


def _legend(kind: str, shape: str, words: str) -> str:
    return f'<li class="{kind}"><svg viewBox="0 0 22 16" aria-hidden="true">{shape}</svg>{words}</li>'


_LEGEND = (
    '<ul class="legend">'
    + _legend("kept", '<circle cx="11" cy="8" r="6"/>', "kept")
    + _legend("dropped", '<circle cx="11" cy="8" r="5"/>', "left out")
    + _legend("dense", '<polygon points="11,1 18,8 11,15 4,8"/>', "dense")
    + _legend("", '<polyline class="line front" points="0,8 22,8"/>', "Pareto front")
    + "</ul>"
)


def _variants(evidence: Evidence) -> str:
    assert evidence.profile is not None
    columns: list[Column] = [
        Column("variant", "variant", lambda row: row["name"]),
        Column("verdict", "verdict", lambda row: row["verdict"], words=True),
        Column("ratio", "ratio", lambda row: row.get("ratio"), "{:.3g}".format),
        Column("accuracy", "accuracy", lambda row: row.get("accuracy"), show_share),
        Column("parameters", "parameters", lambda row: row["parameters"], show_count),
        Column("file", "file_bytes", lambda row: row["file_bytes"], show_bytes),
        Column("deflated", "deflated_bytes", lambda row: row["deflated_bytes"], show_bytes),
        Column("memory", "memory_mb", lambda row: row.get("memory_mb"), "{:.3g} MB".format),
        Column("latency", "latency_ms", lambda row: row["latency"]["p50"], "{:.3g} ms".format),
        Column("speed-up", "speedup", lambda row: row["faster"]["median"], "{:.2f}×".format),
        Column("from", "speedup_low", lambda row: row["faster"]["low"], "{:.2f}".format),
        Column("to", "speedup_high", lambda row: row["faster"]["high"], "{:.2f}".format),
        Column("switch", "switch_ms", lambda row: row.get("switch_ms"), "{:.2g} ms".format),
    ]
    rows = []
    for name, entry in evidence.profile["variants"].items():
        reason = evidence.dropped.get(name)
        kept = "kept, Pareto-optimal" if name in evidence.optimal else "kept"
        batch = next(iter(entry["latency_ms"]))
        rows.append(
            {
                **entry,
                "name": name,
                "verdict": kept if reason is None else f"left out: {reason}",
                "latency": entry["latency_ms"][batch],
                "faster": entry["speedup"][batch],
            }
        )
    baseline = evidence.profile.get("baseline", {}).get("name", "the dense model")
    noisy = [row["name"] for row in rows if row["latency"]["noisy"]]
    remark = f" Latency stayed noisy when repeated: {', '.join(noisy)}." if noisy else ""
    return (
        '<section aria-labelledby="variants"><h2 id="variants">What stayed, and why</h2>'
        f'<p class="lead">Speed-up against {escape(baseline)}, measured in interleaved rounds; the middle '
        f"half of them lay between the two figures after it.{escape(remark)}</p>"
        f"{table(columns, rows)}{download('variants', columns, rows)}</section>"
    )


# --- layers and switching ----------------------------------------------------------------------------------


def _layers(prunings: Mapping[str, Pruning]) -> str:
    last = list(prunings)[-1]
    options = "".join(
        f'<option value="layers-{n}"{" selected" if name == last else ""}>{escape(name)}</option>'
        for n, name in enumerate(prunings)
    )
    panels = "".join(
        _layer_panel(f"layers-{n}", name, pruning) for n, (name, pruning) in enumerate(prunings.items())
    )
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
        f"{folded_table('layers', columns, rows)}</section>"
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
        f"<details><summary>What stayed although empty, and why</summary><ul>{notes}</ul></details>"
        if notes
        else ""
    )
    return (
        f'<div id="{key}" data-panel="layers" role="group" aria-label="{escape(name, quote=True)}">'
        f'<p class="lead">{escape(name)}: {after} of {before} channels stay.</p>'
        f'<ol class="layers">{items}</ol>{stayed}</div>'
    )
