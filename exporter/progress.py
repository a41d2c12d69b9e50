"""How a run shows on the terminal: a live line where there is one, a plain line now and then where there is
none.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from onnx_shift.exporter.rounds import Progress

PLAIN_LINE_SECONDS = 15.0


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yield a callback for `train` that shows where the run stands on `console`."""
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    redirect = sys.stdout.isatty()  # elsewhere results must not take the way of the progress bar
    with Bar(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("starting", total=1.0, left="")

        def show(progress: Progress) -> None:
            left = f"{progress.done:.0%}  {time_left(progress.seconds_left)}"
            bar.update(task, description=describe(progress), completed=progress.done, left=left)

        yield show


def _plain(console: Console) -> Callable[[Progress], None]:
    shown_at = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= PLAIN_LINE_SECONDS:
            shown_at = time.monotonic()
            console.print(f"{describe(progress)}  {progress.done:.0%}  {time_left(progress.seconds_left)}")

    return show


def describe(progress: Progress) -> str:
    """One line of where the run stands, such as "ratio 4 (2 of 8)  epoch 3 of 8  loss 0.12"."""
    what = (
        "dense" if progress.round == 0 else f"ratio {progress.ratio:.4g} (round {progress.round} of {progress.rounds})"
    )
    loss = "" if progress.loss is None else f"  loss {progress.loss:.3f}"
    return f"{what}  epoch {progress.epoch} of {progress.epochs}{loss}"


def time_left(seconds: float | None) -> str:
    """Such as "12 min left"; empty while the pace is not known."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s left"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"
