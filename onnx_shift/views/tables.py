"""Results as tables for people, on a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

Entry = Mapping[str, Any]


def show_bytes(size: float) -> str:
    """A size as a person reads it, in units of 1000."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def show_count(count: float) -> str:
    """A number of parameters or operations, short."""
    for unit in ("", " k", " M"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} G"


def show_number(number: int, what: str) -> str:
    """A number of things, in words that fit one and many."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def show_share(share: float) -> str:
    """A share, such as an accuracy, in percent."""
    return f"{share:.2%}"


def show_latency(figures: Entry) -> str:
    """The median in milliseconds; ~ marks a measurement that stayed noisy."""
    return f"{'~' if figures['noisy'] else ''}{figures['p50']:.3g}"


def show_range(figures: Mapping[str, float]) -> str:
    """The lowest and the highest speed-up of all rounds."""
    return f"{figures['low']:.2f}–{figures['high']:.2f}"


def profile_tables(profile: Entry) -> list[Table]:
    """What each variant of a profile (format 1) is; then, for each provider, how fast, and what it takes to serve.

    A column that no variant has a value for is left out, and so is a table without columns.
    """
    providers = profile["machine"]["providers"]
    tables = [size_table(profile)]
    for provider in providers:
        title = provider if len(providers) > 1 else None
        entries = _on_provider(profile, provider)
        tables += [speed_table(entries, title), serving_table(entries, title)]
    return [table for table in tables if len(table.columns) > 1]


def _on_provider(profile: Entry, provider: str) -> dict[str, Entry]:
    """The figures by variant; those of the first provider stand in the entry itself."""
    first = profile["machine"]["providers"][0]
    return {
        name: entry if provider == first else entry.get("providers", {}).get(provider, {})
        for name, entry in profile["variants"].items()
    }


def size_table(profile: Entry) -> Table:
    """One row per variant: accuracy and size."""
    return _table(
        list(profile["variants"].items()),
        ("ratio", "ratio", "{:.3g}".format),
        ("accuracy", "accuracy", show_share),
        ("top-5", "top5", show_share),
        ("params", "parameters", show_count),
        ("MACs", "macs", show_count),
        ("file", "file_bytes", show_bytes),
        ("deflated", "deflated_bytes", show_bytes),
    )


def serving_table(entries: Mapping[str, Entry], title: str | None = None) -> Table:
    """One row per variant: throughput at the best batch, resident memory and its peak, the cost of a switch to it."""
    return _table(
        list(entries.items()),
        ("images/s", "throughput", "{:,.0f}".format),
        ("memory", "memory_mb", "{:.3g} MB".format),
        ("peak memory", "peak_memory_mb", "{:.3g} MB".format),
        ("switch", "switch_ms", "{:.2g} ms".format),
        title=title,
    )


def demo_table(figures: Entry) -> Table:
    """The demo's variants: what each costs and gains, and whether it is in the portfolio."""
    rows = []
    for name, entry in figures["profile"]["variants"].items():
        batch = next(iter(entry["latency_ms"]))
        reason = figures["dropped"].get(name)
        rows.append(
            (
                name,
                entry
                | {
                    "latency": show_latency(entry["latency_ms"][batch]),
                    "faster": f"{entry['speedup'][batch]['median']:.2f}×",
                    "packed": "" if reason else "✓",
                },
            )
        )
    return _table(
        rows,
        ("ratio", "ratio", "{:.0f}".format),
        ("accuracy", "accuracy", show_share),
        ("params", "parameters", show_count),
        ("file", "file_bytes", show_bytes),
        ("ms", "latency", str),
        ("speed-up", "faster", str),
        ("packed", "packed", str),
    )


def speed_table(entries: Mapping[str, Entry], title: str | None = None) -> Table:
    """One row per variant and batch size: latency percentiles, spread, speed-up over the baseline."""
    rows: list[tuple[str, Entry]] = []
    for name, entry in entries.items():
        for batch, latency in entry.get("latency_ms", {}).items():
            speedup = entry["speedup"][batch]
            row = {
                "batch": batch,
                "p50": show_latency(latency),
                "speedup": f"{speedup['median']:.2f}",
                "range": show_range(speedup),
                "p95": f"{latency['p95']:.3g}",
                "p99": f"{latency['p99']:.3g}",
                "spread": latency["spread"],
            }
            rows.append((name, row))
    return _table(
        rows,
        ("batch", "batch", str),
        ("p50 ms", "p50", str),
        ("p95 ms", "p95", str),
        ("p99 ms", "p99", str),
        ("spread", "spread", "{:.0%}".format),
        ("speed-up", "speedup", str),
        ("from–to", "range", str),
        title=title,
    )


def _table(
    rows: Sequence[tuple[str, Entry]],
    *columns: tuple[str, str, Callable[[Any], str]],
    title: str | None = None,
) -> Table:
    """`rows` by name under `columns` of (heading, key, how to show); a column without any value is left out."""
    table = plain_table("variant")
    table.title, table.title_justify = title, "left"
    used = [column for column in columns if any(row.get(column[1]) is not None for _, row in rows)]
    for heading, _, _ in used:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows:
        cells = ["–" if row.get(key) is None else show(row[key]) for _, key, show in used]
        table.add_row(name, *cells)
    return table


def plain_table(first: str) -> Table:
    """A table that fits eighty columns: no lines but under the head."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")  # a long name gives way, figures never do
    return table


def profile_notes(profile: Entry) -> list[str]:
    """What the tables' figures mean: machine, baseline, what could not be measured, what is too noisy to trust."""
    machine, variants = profile["machine"], profile["variants"]
    notes = [
        f"{machine['processor']}, {machine['cores']} cores; onnxruntime {machine['onnxruntime']}, "
        f"{', '.join(machine['providers'])}, {show_number(machine['threads'], 'thread')}; {machine['date']}",
        f"speed-up: against {profile['baseline']['name']}, median of interleaved rounds, and from the lowest to the "
        "highest",
        "spread: between the quartiles of the rounds, over their median; images/s: at the best batch",
    ]
    images = sorted({entry["images"] for entry in variants.values() if entry.get("images")})
    if images:
        notes.append(f"accuracy: of {' or '.join(map(str, images))} test images")
    if all(entry.get("switch_ms") is None for entry in variants.values()):
        why = "a single model has none to switch from" if len(variants) == 1 else "their inputs or outputs differ"
        notes.append(f"switch: not measured, as {why}")
    noisy = [
        name
        for name in variants
        if any(
            latency["noisy"]
            for provider in machine["providers"]
            for latency in _on_provider(profile, provider)[name].get("latency_ms", {}).values()
        )
    ]
    if noisy:
        notes.append(
            f"~: rounds lay far apart even when repeated: {', '.join(noisy)}; measure again on a quieter machine"
        )
    return notes
