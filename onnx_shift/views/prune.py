"""The terminal report of `onnx-shift prune`."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from onnx_shift.onnx_pruner.report import LayerChange, PruneReport

_LITTLE_GAIN = 0.95  # a model that keeps more of its parameters has hardly shrunk


def show(report: "PruneReport", output: Path, out: Console, explain: bool) -> None:
    """Print what changed: a row per changed layer, totals, and with `explain` why zero or dead channels stayed."""
    if report.unchanged:
        same = "holds the same model, its external data within" if report.external_data else "is a byte-identical copy"
        why = f"{output} {same}."
        if report.parameters_after_align_1 < report.parameters_after:
            out.print(f"Nothing to remove at --align {report.align}, but at --align 1: {why}", highlight=False)
        else:
            out.print(f"Nothing to remove and no BatchNormalization to fold: {why}", highlight=False)
    else:
        changed = [layer for layer in report.layers if layer.before != layer.after]
        if changed:
            out.print(_table(changed))
        _totals(report, out, output)
    if line := why_hardly_smaller(report):
        out.print(line, highlight=False)
    if explain:
        _reasons(report, out)
    for note in report.notes:
        out.print(f"note: {note}", style="dim", highlight=False)


def why_hardly_smaller(report: "PruneReport") -> str:
    """In one line why the model hardly shrank, and the next step; empty where it did shrink, or where a note tells."""
    least = _LITTLE_GAIN * report.parameters_before
    if report.parameters_after < least or any("weights are zero" in note for note in report.notes):
        return ""
    if report.parameters_after_align_1 < least:
        return "why hardly smaller: channels stay for alignment; next: onnx-shift prune --align 1"
    unseen = sorted(report.left_out, key=lambda found: found.parameters)
    if unseen and unseen[-1].parameters > report.parameters_before / 2:
        found = unseen[-1]
        step = "prune the float model, then onnx-shift quantize" if "integers" in found.reason else "see --explain"
        return f"why hardly smaller: {found.parameters:,} parameters were not looked at ({found.reason}); next: {step}"
    if report.kept:
        return "why hardly smaller: zero or dead channels stayed; next: --explain says why"
    return (
        "why hardly smaller: hardly a channel is without weights; next: train for zeros, with onnx-shift train or "
        "whatever prunes, and give its result"
    )


def _table(layers: "list[LayerChange]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold")
    table.add_column("")
    for title in ("before", "after", "parameters", "left"):
        table.add_column(title, justify="right", no_wrap=True)
    for layer in layers:
        after = "×".join(map(str, layer.after)) if layer.after else "gone"
        left = layer.parameters_after / max(layer.parameters_before, 1)
        parameters = f"{layer.parameters_before:,} → {layer.parameters_after:,}"
        table.add_row(layer.name, layer.op, "×".join(map(str, layer.before)), after, parameters, f"{left:.0%}")
    return table


def _totals(report: "PruneReport", out: Console, output: Path) -> None:
    def line(title: str, before: float, after: float, scale: float = 1, digits: int = 0, less: str = "fewer") -> None:
        figures = f"{title:<22}{before / scale:>16,.{digits}f} → {after / scale:<14,.{digits}f} "
        out.print(Text.assemble(figures, (_change(before, after, less), "bold")), highlight=False)

    out.print()
    line("parameters", report.parameters_before, report.parameters_after)
    if report.macs_before is not None and report.macs_after is not None:
        line("multiply–accumulates", report.macs_before, report.macs_after)
    line("megabytes", report.bytes_before, report.bytes_after, 1e6, 2, "smaller")
    line("nodes", report.nodes_before, report.nodes_after)
    if report.align > 1 and report.parameters_after_align_1 < report.parameters_after:
        out.print(
            "some empty channels are kept for speed; --align 1 would leave "
            f"{report.parameters_after_align_1:,} parameters",
            highlight=False,
        )
    if report.narrowed:
        out.print(f"layers that read or make some channels only, by a Gather: {len(report.narrowed)}", highlight=False)
    did = f"removed {report.channels_removed:,} of {report.channels_before:,} channels"
    if report.batch_norms_fused:
        did += f", folded {report.batch_norms_fused} BatchNormalization"
    seconds = sum(s for step, s in report.seconds.items() if step != "verify")
    out.print(f"{did} in {seconds:.2f} s", highlight=False)
    if report.verified and report.largest_difference is not None:
        out.print(
            f"verified: outputs equal, largest difference {report.largest_difference:.1e} of their scale "
            f"({report.seconds.get('verify', 0):.1f} s)",
            highlight=False,
        )
    else:
        out.print("not verified", style="yellow", highlight=False)
    out.print(f"wrote {output}", highlight=False)


def _change(before: float, after: float, less: str) -> str:
    if before == after:
        return "unchanged"
    if after > before:
        return f"{after / before - 1:.2%} more" if before else "more"
    return f"{before / after:.2f}× {less}" if after and before / after >= 1.005 else f"{1 - after / before:.2%} {less}"


def _reasons(report: "PruneReport", out: Console) -> None:
    if report.narrowed:
        names = ", ".join(report.narrowed)
        out.print(f"a Gather picks or spreads channels at: {names} (--align 1 adds none)", highlight=False)
    for found in report.left_out:
        names = ", ".join(found.layers[:5]) + (f" and {len(found.layers) - 5} more" if len(found.layers) > 5 else "")
        layers = f"{len(found.layers)} layer{'s' if len(found.layers) > 1 else ''}"
        out.print(
            f"not looked at: {layers} ({found.parameters:,} parameters), {found.reason}: {names}", highlight=False
        )
    if not report.kept:
        where = "in the other layers " if report.left_out else ""
        out.print(f"{where}no zero or dead channel stayed", highlight=False)
        return
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title="zero or dead channels that stayed",
        title_justify="left",
    )
    table.add_column("tensor", overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("why", overflow="fold")
    for kept in report.kept:
        table.add_row(kept.tensor, str(len(kept.channels)), kept.reason)
    out.print(table)
