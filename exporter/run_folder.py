"""The folder of a run: which file is what, so that training, resuming and exporting agree.

recipe.json            the whole recipe; `onnx-shift train RUN/recipe.json` runs it again
level-00.onnx …        the dense network, then one per level
metrics.csv            a row per epoch
levels.csv             a row per finished level
checkpoints/           rewind.pt, last.pt (the epoch reached), round-00.pt … (finished rounds)
tensorboard/           the same numbers for TensorBoard
"""

import csv
import fcntl
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.checkpoint import CheckpointError
from onnx_shift.exporter.recipe import Recipe, load_recipe
from onnx_shift.files import write_text


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def rewind(self) -> Path:
        return self.path / "checkpoints" / "rewind.pt"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    def round(self, number: int) -> Path:
        """The checkpoint at the end of a round of pruning and training; round 0 is dense."""
        return self.path / "checkpoints" / f"round-{number:02d}.pt"

    def level(self, number: int) -> Path:
        """The ONNX file of a level."""
        return self.path / f"level-{number:02d}.onnx"

    def refuse_other(self, recipe: Recipe) -> None:
        """Raise CheckpointError, naming what differs, when the folder holds a run of another recipe.

        More levels than before may be asked for.
        """
        if not self.recipe.exists():
            if any(self.last.parent.glob("*.pt")):
                raise CheckpointError(f"{self.path}: holds checkpoints, but not the recipe.json they belong to")
            return
        stored = load_recipe(self.recipe)
        if stored.hash == recipe.hash:
            return
        differences = [
            f"{field} {getattr(stored, field)!r} there, {getattr(recipe, field)!r} here"
            for field in recipe.__dataclass_fields__
            if field != "levels" and getattr(stored, field) != getattr(recipe, field)
        ]
        raise CheckpointError(
            f"{self.path}: holds a run of another recipe ({'; '.join(differences)}); choose another folder with -o"
        )

    @contextmanager
    def claim(self, recipe: Recipe) -> Iterator[None]:
        """Make the folder and hold it for this process, with the recipe stored in it.

        Raises OnnxShiftError when it cannot be made or another process trains in it.
        """
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise OnnxShiftError(f"{self.path}: cannot be made ({error.strerror})") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OnnxShiftError(f"{self.path}: another process is training in this folder") from error
            # What a killed process was writing; runs below are others'.
            for folder in (self.path, self.last.parent):
                for stray in folder.glob(".*.tmp"):
                    stray.unlink(missing_ok=True)
            write_text(self.recipe, recipe.to_json())
            yield


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, all with the keys of the first, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
