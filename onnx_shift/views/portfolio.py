"""A portfolio as people and programs want to see it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from onnx_shift.views.tables import show_bytes, show_number, show_share

if TYPE_CHECKING:
    from onnx_shift.portfolio.select import Selection
    from onnx_shift.runtime.portfolio import Portfolio


def portfolio_summary(portfolio: "Portfolio") -> dict[str, Any]:
    """Return what `inspect --json` prints of a portfolio."""
    return {
        "inputs": [vars(signature) for signature in portfolio.inputs],
        "outputs": [vars(signature) for signature in portfolio.outputs],
        "variants": [
            {
                "name": variant.name,
                "weight_bytes": variant.weight_bytes,
                "nonzero_bytes": variant.nonzero_bytes,
                "deflated_bytes": variant.deflated_bytes,
                "sha256": variant.sha256,
                "metadata": dict(variant.metadata),
            }
            for variant in portfolio
        ],
    }


def portfolio_table(portfolio: "Portfolio") -> Table:
    """Return the variants as a table, smallest first; accuracy where the metadata state it."""
    table = Table(box=None, pad_edge=False)
    for heading in ("variant", "weights", "not zero", "deflated", "accuracy", "ratio"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for variant in portfolio:
        ratio = variant.metadata.get("ratio")
        table.add_row(
            variant.name,
            show_bytes(variant.weight_bytes),
            show_bytes(variant.nonzero_bytes),
            show_bytes(variant.deflated_bytes),
            "–" if variant.accuracy is None else show_share(variant.accuracy) + "*" * variant.accuracy_claimed,
            f"{ratio:.3g}" if isinstance(ratio, int | float) else "–",
        )
    return table


def size_words(portfolio: "Portfolio", size_bytes: int) -> str:
    """Return the number of variants and the size of the file for people."""
    return f"{show_number(len(portfolio), 'variant')}, {show_bytes(size_bytes)}"


def machine_lines(portfolio: "Portfolio") -> list[str]:
    """Return where and when the variants were measured, a line for each machine and date."""
    measured: dict[str, list[str]] = {}
    for variant in portfolio:
        machine = variant.metadata.get("machine")
        if isinstance(machine, dict):
            threads = machine.get("threads")
            place = (
                f"{machine.get('processor')}, {threads} thread{'' if threads == 1 else 's'}, "
                f"onnxruntime {machine.get('onnxruntime')}, {machine.get('date')}"
            )
            measured.setdefault(place, []).append(variant.name)
    return [f"measured on {place}: {', '.join(names)}" for place, names in measured.items()]


def signed_lines(portfolio: "Portfolio", trusted: Path | None) -> list[str]:
    """Return that the portfolio is signed, and by whom as far as that was checked, in a line, or none."""
    if not portfolio.signed:
        return []
    return [f"signed by the key of {trusted}" if trusted else "signed; --trusted KEY.pem checks by whom"]


def claim_lines(portfolio: "Portfolio") -> list[str]:
    """Return which accuracies were taken over from the models' metadata, in a line, or none."""
    names = [variant.name for variant in portfolio if variant.accuracy_claimed]
    return [f"* accuracy claimed, not measured: {', '.join(names)}"] if names else []


def signature_line(portfolio: "Portfolio") -> str:
    """Return inputs and outputs in one line."""
    sides = [", ".join(f"{s.name} {s.type}{s.shape}" for s in side) for side in (portfolio.inputs, portfolio.outputs)]
    return f"{sides[0]} -> {sides[1]}"


def selection_summary(selection: "Selection") -> dict[str, Any]:
    """Return what `pack --json` prints of the choice; without a profile nothing was chosen."""
    return selection.to_dict() if selection.optimal else {"dropped": dict(selection.dropped)}


def selection_lines(selection: "Selection") -> list[str]:
    """Return the search efficiency and what it counts in one line, or none where nothing was chosen."""
    if not selection.optimal:
        return []
    count = len(selection.kept) + len(selection.dropped)
    return [
        f"search efficiency {selection.efficiency:.0%}: {len(selection.optimal)} of {count} variants are "
        f"Pareto-optimal in {', '.join(selection.metrics)}"
    ]
