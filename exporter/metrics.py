"""What a run reports while it lives: rows for CSV and TensorBoard, and how long it will still take."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.run_folder import write_csv


class Metrics:
    """Writes the rows of finished epochs to metrics.csv, of finished levels to levels.csv, and both to
    TensorBoard.
    """

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self._folder = folder
        self._levels: list[Mapping[str, Any]] = []
        self._board = _open_board(folder / "tensorboard") if tensorboard else None
        self._on_board = 0

    def epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows so far: the file never disagrees with the checkpoint that holds them."""
        write_csv(self._folder / "metrics.csv", rows)
        if self._board is not None:
            with self._writing():
                for row in rows[self._on_board :]:
                    for key in ("loss", "test_accuracy", "learning_rate", "images_per_second"):
                        if row[key] is not None:
                            self._board.add_scalar(f"round-{row['round']:02d}/{key}", row[key], row["epoch"])
                self._board.flush()
        self._on_board = len(rows)

    def level(self, row: Mapping[str, Any]) -> None:
        """Add a finished level."""
        self._levels.append(row)
        write_csv(self._folder / "levels.csv", self._levels)
        if self._board is not None:
            with self._writing():
                self._board.add_scalar("levels/accuracy", row["accuracy"], row["level"])

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            with self._writing():
                self._board.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a full disk under TensorBoard's files into one line."""
        try:
            yield
        except OSError as error:
            self._board = None  # it would raise the same again when it is closed
            board = self._folder / "tensorboard"
            raise OnnxShiftError(f"{board}: cannot be written ({error.strerror or error})") from error


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OnnxShiftError("--tensorboard: needs the package tensorboard") from error
    return SummaryWriter(str(folder))


class Clock:
    """Estimates the time left from the pace since this process began."""

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self._start: tuple[int, float] | None = None

    def seconds_left(self, steps_done: int) -> float | None:
        """None until the pace is known."""
        now = time.monotonic()
        if self._start is None:
            self._start = (steps_done, now)
        first_step, began = self._start
        if steps_done <= first_step:
            return None
        return (now - began) / (steps_done - first_step) * (self.total_steps - steps_done)
