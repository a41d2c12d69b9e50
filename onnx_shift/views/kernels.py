"""What compiling a model measured and chose, as people and programs want to see it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from onnx_shift.views.tables import show_number

if TYPE_CHECKING:
    from onnx_shift.runtime.kernels import Choice


def choice_summary(choice: "Choice") -> dict[str, Any]:
    """Return what `compile --json` prints."""
    layers = [{**vars(layer)} for layer in choice.layers]
    return {"dense_ms": choice.dense_ms, "sparse_ms": choice.sparse_ms, "changed": choice.changed, "layers": layers}


def choice_table(choice: "Choice", title: str | None = None) -> Table:
    """Return the layers that our kernels could compute, with what each took, as a table."""
    table = Table(title=title, box=None, pad_edge=False)
    for heading in ("layer", "zeros", "dense, ms", "sparse, ms", "chosen"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in choice.layers:
        chosen = "sparse" if layer.chosen else "dense"
        table.add_row(layer.name, f"{layer.zeros:.1%}", f"{layer.dense_ms:.3f}", f"{layer.sparse_ms:.3f}", chosen)
    return table


def choice_lines(choice: "Choice", path: Path) -> list[str]:
    """Return what was gained, in a line or two."""
    if not choice.layers:
        return [f"{path}: unchanged; no layer has half of its weights zero or more"]
    if not choice.changed:
        return [f"{path}: unchanged; no choice of layers would be faster here"]
    count = sum(layer.chosen for layer in choice.layers)
    return [
        f"{path}: {show_number(count, 'layer')} of {len(choice.layers)} on our kernels, "
        f"{choice.dense_ms:.2f} -> {choice.sparse_ms:.2f} ms ({choice.dense_ms / choice.sparse_ms:.2f}x)",
        "to run it: onnx_shift.runtime.kernels.register(session_options)",
    ]


def missing_lines() -> list[str]:
    """Return why the kernels cannot be used here, in one line, or none where they can."""
    from onnx_shift.runtime.kernels import missing

    reason = missing()
    return [] if reason is None else [f"layers with scattered zeros run as dense ones here: {reason}"]
