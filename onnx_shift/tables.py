"""Results as tables for people, on a terminal."""

from collections.abc import Callable, Mapping
from typing import Any

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


def show_speedup(figures: Mapping[str, float]) -> str:
    """How many times faster than the fused dense model, with the quartiles of the rounds."""
    if figures["low"] == figures["high"]:
        return f"{figures['median']:.2f}"
    return f"{figures['median']:.2f} ({figures['low']:.2f}–{figures['high']:.2f})"


def profile_table(profile: Entry, marks: Mapping[str, str] | None = None) -> Table:
    """One row per variant of a profile (format 1); `marks` adds a last column with a word on some.

    A column that no variant has a value for is left out.
    """
    variants: Mapping[str, Entry] = profile["variants"]
    columns: list[tuple[str, Callable[[Entry], str | None]]] = [
        ("ratio", _cell("ratio", "{:.3g}".format)),
        ("accuracy", _cell("accuracy", show_share)),
        ("parameters", _cell("parameters", show_count)),
        ("MACs", _cell("macs", show_count)),
        ("file", _cell("file_bytes", show_bytes)),
        ("deflated", _cell("deflated_bytes", show_bytes)),
        ("memory", _cell("memory_mb", "{:.3g} MB".format)),
    ]
    batches = list(next(iter(variants.values()))["latency_ms"])
    for batch in batches:
        of_batch = f", batch {batch}" if len(batches) > 1 else ""
        columns.append((f"ms{of_batch}", _cell("latency_ms", show_latency, batch)))
        columns.append((f"speed-up{of_batch}", _cell("speedup", show_speedup, batch)))
    columns.append(("switch ms", _cell("switch_ms", "{:.3g}".format)))
    columns = [(title, cell) for title, cell in columns if any(cell(entry) for entry in variants.values())]

    table = Table(header_style="bold")
    table.add_column("variant", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right")
    if marks:
        table.add_column("")
    for name, entry in variants.items():
        cells = [cell(entry) or "–" for _, cell in columns]
        table.add_row(name, *cells, *([marks.get(name, "")] if marks else []))
    return table


def _cell(key: str, show: Callable[[Any], str], batch: str | None = None) -> Callable[[Entry], str | None]:
    def cell(entry: Entry) -> str | None:
        value = entry.get(key)
        if batch is not None and value is not None:
            value = value.get(batch)
        return None if value is None else show(value)

    return cell


def profile_notes(profile: Entry) -> list[str]:
    """What the table's figures mean: machine, baseline, and what was too noisy to trust."""
    machine = profile["machine"]
    baseline = profile["baseline"].get("name", profile["dense"])
    notes = [
        f"{machine['processor']}, {machine['cores']} cores; onnxruntime {machine['onnxruntime']}, "
        f"{', '.join(machine['providers'])}, {machine['threads']} thread(s); {machine['date']}.",
        f"Speed-up: against {baseline}, median of interleaved rounds (quartiles in brackets).",
    ]
    noisy = [
        name
        for name, entry in profile["variants"].items()
        if any(latency["noisy"] for latency in entry["latency_ms"].values())
    ]
    if noisy:
        notes.append(f"~ noisy even when repeated: {', '.join(noisy)}. Measure again on a quieter machine.")
    return notes
