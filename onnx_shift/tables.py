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


def show_share(share: float) -> str:
    """A share, such as an accuracy, in percent."""
    return f"{share:.2%}"


def show_latency(figures: Entry) -> str:
    """The median in milliseconds; ~ marks a measurement that stayed noisy."""
    return f"{'~' if figures['noisy'] else ''}{figures['p50']:.3g}"


def show_range(figures: Mapping[str, float]) -> str:
    """Between which speed-ups the middle half of the rounds lay."""
    return f"{figures['low']:.2f}–{figures['high']:.2f}"


def size_table(profile: Entry) -> Table:
    """One row per variant of a profile (format 1): accuracy, size, memory and the cost of a switch.

    A column that no variant has a value for is left out.
    """
    return _table(
        list(profile["variants"].items()),
        ("ratio", "ratio", "{:.3g}".format),
        ("accuracy", "accuracy", show_share),
        ("params", "parameters", show_count),
        ("MACs", "macs", show_count),
        ("file", "file_bytes", show_bytes),
        ("deflated", "deflated_bytes", show_bytes),
        ("memory", "memory_mb", "{:.3g} MB".format),
        ("switch", "switch_ms", "{:.2g} ms".format),
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
        ("deflated", "deflated_bytes", show_bytes),
        ("ms", "latency", str),
        ("speed-up", "faster", str),
        ("packed", "packed", str),
    )


def speed_table(profile: Entry) -> Table:
    """One row per variant and batch size: latency percentiles, throughput, speed-up over the baseline."""
    rows: list[tuple[str, Entry]] = []
    for name, entry in profile["variants"].items():
        for batch, latency in entry["latency_ms"].items():
            speedup = entry["speedup"][batch]
            row = {
                "batch": batch,
                "p50": show_latency(latency),
                "throughput": 1000 * int(batch) / latency["p50"],
                "speedup": f"{speedup['median']:.2f}",
                "range": show_range(speedup),
                "p95": f"{latency['p95']:.3g}",
                "p99": f"{latency['p99']:.3g}",
            }
            rows.append((name, row))
    return _table(
        rows,
        ("batch", "batch", str),
        ("p50 ms", "p50", str),
        ("p95 ms", "p95", str),
        ("p99 ms", "p99", str),
        ("images/s", "throughput", "{:,.0f}".format),
        ("speed-up", "speedup", str),
        ("from–to", "range", str),
    )


def _table(rows: Sequence[tuple[str, Entry]], *columns: tuple[str, str, Callable[[Any], str]]) -> Table:
    """`rows` by name under `columns` of (title, key, how to show); a column without any value is left out."""
    table = plain_table("variant")
    used = [column for column in columns if any(row.get(column[1]) is not None for _, row in rows)]
    for title, _, _ in used:
        table.add_column(title, justify="right", no_wrap=True)
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
    """What the tables' figures mean: machine, baseline, and what was too noisy to trust."""
    machine = profile["machine"]
    notes = [
        f"{machine['processor']}, {machine['cores']} cores; onnxruntime {machine['onnxruntime']}, "
        f"{', '.join(machine['providers'])}, {machine['threads']} thread(s); {machine['date']}",
        f"speed-up: against {profile['baseline']['name']}, median and range of interleaved rounds",
    ]
    noisy = [
        name
        for name, entry in profile["variants"].items()
        if any(latency["noisy"] for latency in entry["latency_ms"].values())
    ]
    if noisy:
        notes.append(f"~ noisy even when repeated: {', '.join(noisy)}; measure again on a quieter machine")
    return notes
