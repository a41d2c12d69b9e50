"""Progress of several steps: a bar for each on a terminal, a plain line for each where there is none."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[float, str], None]  # share done 0..1, what is being done


class Steps:
    """Shows steps one after the other on `console` and remembers how many seconds each took."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Steps":
        self._bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False, style="dim")

    @contextmanager
    def step(self, title: str) -> Iterator[Advance]:
        """Show `title` while the body runs; what it is given takes the share done and a remark."""
        if self._bars.disable:
            self._console.print(f"{title} …", highlight=False)
        task = self._bars.add_task(title, total=1.0, doing="")
        started = time.monotonic()
        yield lambda done, doing: self._bars.update(task, completed=done, doing=doing)
        self.seconds[title] = round(time.monotonic() - started, 2)
        self._bars.update(task, completed=1.0, doing="")
