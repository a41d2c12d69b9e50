"""What benchmarks make of a training's levels: pruned files, answers to the test images, portfolios."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.support import trainings
from onnx_shift.exporter.rounds import Run
from onnx_shift.onnx_pruner import prune
from onnx_shift.ort import CPU
from onnx_shift.portfolio.evaluation import Batches, labelled_images
from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profiling import Settings, profile
from onnx_shift.portfolio.sessions import open_session

#: The trainings whose levels make one portfolio, by what their variants are called.
SHIPPED = {"imp": "imp-preset", "fast": "fast"}
COLLAPSED = 0.2  # accuracy; guessing among ten classes gives 0.1


@dataclass(frozen=True)
class Pruned:
    """A pruned level, named after its training and level, and the sparse file that it was made of."""

    path: Path
    sparse: Path


def missing() -> str | None:
    """Return why nothing can be made of the levels here, if so."""
    return None if "imp" in shipped_runs() else trainings.missing(SHIPPED["imp"])


def shipped_runs() -> dict[str, Run]:
    """Return the runs of `SHIPPED` that are there."""
    runs = {name: trainings.finished_run(training) for name, training in SHIPPED.items()}
    return {name: run for name, run in runs.items() if run is not None}


def pruned_variants(folder: Path, *, collapsed: bool = False) -> list[Pruned]:
    """Prune all levels of plain magnitude, its dense network first, and the channel-sparse variants.

    Levels that hardly do better than guessing are left out unless `collapsed`: small and useless proves nothing.
    """
    found = []
    for name, run in shipped_runs().items():
        for path, level in zip(pruned_levels(run, folder / name), run.levels, strict=True):
            if level.accuracy < COLLAPSED and not collapsed:
                continue
            found.append(Pruned(path.rename(folder / f"{name}-{level.level:02d}.onnx"), level.onnx))
    return found


def pruned_levels(run: Run, folder: Path, align: int = 4) -> list[Path]:
    """Prune every level of `run` into `folder`, verified, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / level.onnx.name for level in run.levels]
    for level, path in zip(run.levels, paths, strict=True):
        prune(level.onnx, align=align).save(path)
    return paths


def test_images(model: Path) -> Batches:
    """Open the test images once, normalised as `model` says."""
    return labelled_images(trainings.DATA, model)


def answers(
    model: Path | bytes, batches: Iterable[tuple[NDArray[Any], NDArray[Any]]], provider: str = CPU
) -> NDArray[np.float32]:
    """Return what `model` says to all images (N, classes), by one thread of onnxruntime, in whole float32."""
    chosen = CPU if provider == CPU else (provider, {"use_tf32": "0"})
    session = open_session(model, [chosen], 1)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images})[0] for images, _ in batches])


def labels_of(batches: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> NDArray[np.int64]:
    """Return the classes of all images."""
    return np.concatenate([labels for _, labels in batches])


def portfolio_worth_shipping(models: list[Path], output: Path) -> Path:
    """Pack those of `models` that selection keeps, by their stated accuracy, their latency and their size."""
    found = profile(models, dense=models[0], settings=Settings(seconds=1.0, attempts=3, memory=False))
    pack(models, output, profile=found)
    return output
