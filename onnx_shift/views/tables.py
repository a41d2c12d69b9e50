"""Results as tables for people, on a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.table import Table

T = TypeVar("T")
Column = tuple[str, Callable[[T], Any], Callable[[Any], str]]  # its heading, how a row is read and a value shown

if TYPE_CHECKING:
    from onnx_shift.portfolio.profile import Cascade, Latency, Profile, Speedup, Timing, Variant


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


def show_latency(latency: "Latency") -> str:
    """The median in milliseconds; ~ marks a measurement that stayed noisy."""
    return f"{'~' if latency.noisy else ''}{latency.p50_ms:.3g}"


def show_accuracy(one: "Variant") -> str:
    """The share, starred where nobody measured it."""
    return f"{show_share(one.accuracy or 0.0)}{'*' if one.accuracy_claimed else ''}"


def show_range(speedup: "Speedup") -> str:
    """The lowest and the highest speed-up of all rounds."""
    return f"{speedup.low:.2f}–{speedup.high:.2f}"


def profile_tables(profile: "Profile") -> list[Table]:
    """What each variant of a profile is; then, for each provider, how fast, and what it takes to serve.

    A column that no variant has a value for is left out, and so is a table without columns.
    """
    providers = _providers(profile)
    tables = [size_table(profile)]
    for provider in providers:
        title = provider if len(providers) > 1 else None
        timings = profile.on_provider(provider)
        switches_ms = {name: one.switch_ms for name, one in profile.variants.items() if provider == providers[0]}
        tables += [speed_table(timings, title), serving_table(timings, switches_ms, title)]
    tables.append(cascade_table(profile))
    return [table for table in tables if len(table.columns) > 1]


def _providers(profile: "Profile") -> "Sequence[str | None]":
    return profile.machine.providers if profile.machine else (None,)


def size_table(profile: "Profile") -> Table:
    """One row per variant: accuracy, or the scores of an evaluation, and size."""
    variants = profile.variants
    columns: list[Column[Variant]] = [
        ("ratio", lambda one: one.ratio, "{:.3g}".format),
        ("accuracy", lambda one: None if one.scores or one.accuracy is None else one, show_accuracy),
        *[
            (name, _score(name), show_share)
            for name in dict.fromkeys(n for one in variants.values() for n in one.scores)
        ],
        ("top-5", lambda one: one.top5, show_share),
        ("params", lambda one: one.parameters, show_count),
        ("MACs", lambda one: one.macs, show_count),
        ("file", lambda one: one.file_bytes, show_bytes),
        ("deflated", lambda one: one.deflated_bytes, show_bytes),
    ]
    return _table(list(variants.items()), columns)


def _score(name: str) -> "Callable[[Variant], float | None]":
    return lambda one: one.scores.get(name)


def serving_table(timings: "Mapping[str, Timing]", switches_ms: Mapping[str, float | None], title: str | None) -> Table:
    """One row per variant: throughput at the best batch, resident memory and its peak, the cost of a switch to it."""
    columns: list[Column[tuple[str, Timing]]] = [
        ("images/s", lambda row: row[1].images_per_second, "{:,.0f}".format),
        ("memory", lambda row: row[1].memory_mb, "{:.3g} MB".format),
        ("peak memory", lambda row: row[1].peak_memory_mb, "{:.3g} MB".format),
        ("switch", lambda row: switches_ms.get(row[0]), "{:.2g} ms".format),
    ]
    return _table([(name, (name, timing)) for name, timing in timings.items()], columns, title)


def cascade_table(profile: "Profile") -> Table:
    """One row per variant and larger one that it can ask: below which margin, of how many images, what accuracy both
    reach, and how many times as fast as the larger alone they are by the latencies of both.
    """

    def speedup(name: str, asked: str, share: float) -> float:
        small_ms, large_ms = (profile.variants[one].timing.median_ms for one in (name, asked))
        return large_ms / (small_ms + share * large_ms)

    rows = [
        (name, (asked, one, speedup(name, asked, one.share)))
        for name, entry in profile.variants.items()
        for asked, one in entry.cascade.items()
        if asked in profile.variants
    ]
    columns: list[Column[tuple[str, Cascade, float]]] = [
        ("asks", lambda row: row[0], str),
        ("below margin", lambda row: row[1].margin, "{:.3g}".format),
        ("of images", lambda row: row[1].share, show_share),
        ("both accurate", lambda row: row[1].accuracy, show_share),
        ("speed-up", lambda row: row[2], "{:.2f}".format),
    ]
    return _table(rows, columns)


def demo_table(profile: "Profile", dropped: Mapping[str, str]) -> Table:
    """The demo's variants: what each costs and gains, and whether it is in the portfolio."""
    columns: list[Column[tuple[str, Variant]]] = [
        ("ratio", lambda row: row[1].ratio, "{:.0f}".format),
        ("accuracy", lambda row: row[1].accuracy, show_share),
        ("params", lambda row: row[1].parameters, show_count),
        ("file", lambda row: row[1].file_bytes, show_bytes),
        ("ms", lambda row: row[1].timing.latency[row[1].timing.smallest_batch], show_latency),
        ("speed-up", lambda row: row[1].timing.compared, lambda speedup: f"{speedup.median:.2f}×"),
        ("packed", lambda row: "" if row[0] in dropped else "✓", str),
    ]
    return _table([(name, (name, one)) for name, one in profile.variants.items()], columns)


def speed_table(timings: "Mapping[str, Timing]", title: str | None = None) -> Table:
    """One row per variant and batch size: latency percentiles, spread, speed-up over the baseline."""
    rows = [
        (name, (batch, latency, timing.speedup.get(batch)))
        for name, timing in timings.items()
        for batch, latency in timing.latency.items()
    ]
    columns: list[Column[tuple[int, Latency, Speedup | None]]] = [
        ("batch", lambda row: row[0], str),
        ("p50 ms", lambda row: row[1], show_latency),
        ("p95 ms", lambda row: row[1].p95_ms, "{:.3g}".format),
        ("p99 ms", lambda row: row[1].p99_ms, "{:.3g}".format),
        ("spread", lambda row: row[1].spread, "{:.0%}".format),
        ("speed-up", lambda row: row[2], lambda speedup: f"{speedup.median:.2f}"),
        ("from–to", lambda row: row[2], show_range),
    ]
    return _table(rows, columns, title)


def _table(rows: Sequence[tuple[str, T]], columns: "Sequence[Column[T]]", title: str | None = None) -> Table:
    """`rows` by name under `columns` of (heading, how to read, how to show); one without any value is left out."""
    table = plain_table("variant")
    table.title, table.title_justify = title, "left"
    used = [column for column in columns if any(column[1](row) is not None for _, row in rows)]
    for heading, _, _ in used:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows:
        cells = ["–" if (value := read(row)) is None else show(value) for _, read, show in used]
        table.add_row(name, *cells)
    return table


def plain_table(first: str) -> Table:
    """A table that fits eighty columns: no lines but under the head."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")  # a long name gives way, figures never do
    return table


def profile_notes(profile: "Profile") -> list[str]:
    """What the tables' figures mean: machine, baseline, what could not be measured, what is too noisy to trust."""
    machine, variants = profile.machine, profile.variants
    notes = []
    if machine is not None:
        notes.append(
            f"{machine.processor}, {machine.cores} cores; onnxruntime {machine.onnxruntime}, "
            f"{', '.join(machine.providers)}, {show_number(machine.threads, 'thread')}; {machine.date}"
        )
        notes += [f"{runtime}: {version}" for runtime, version in machine.runtimes.items()]
    notes += [
        f"speed-up: against {profile.baseline.name if profile.baseline else profile.dense}, median of interleaved "
        "rounds, and from the lowest to the highest",
        "spread: between the quartiles of the rounds, over their median; images/s: at the best batch",
    ]
    if claimed := [name for name, one in variants.items() if one.accuracy_claimed]:
        notes.append(f"* accuracy claimed, not measured: {', '.join(claimed)}")
    images = sorted({one.images for one in variants.values() if one.images})
    if images:
        notes.append(f"accuracy: of {' or '.join(map(str, images))} test images")
    if all(one.switch_ms is None for one in variants.values()):
        why = "a single model has none to switch from" if len(variants) == 1 else "their inputs or outputs differ"
        notes.append(f"switch: not measured, as {why}")
    noisy = [
        name
        for name, one in variants.items()
        if any(latency.noisy for timing in (one.timing, *one.providers.values()) for latency in timing.latency.values())
    ]
    if noisy:
        notes.append(
            f"~: rounds lay far apart even when repeated: {', '.join(noisy)}; measure again on a quieter machine"
        )
    return notes
