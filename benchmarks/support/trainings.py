"""The trainings on CIFAR-10 that benchmarks share: `python -m benchmarks train [NAME ...]` makes what is missing, and
nothing else trains.

Each lies below .bench/trainings/NAME and is recognised by its recipe, but for the number of levels, the path of the
data and the precision, which follows the processor: a run made elsewhere with `onnx-shift train` counts once its folder
is put there, and no change of our code makes it out of date. Without it what benchmarks/data keeps serves (see `kept`).
What it logged is kept there or in docs/results/training/NAME, which is enough for figures that need no model.
The data set is named by ONNX_SHIFT_CIFAR10 (a parquet folder or a hub name; default: uoft-cs/cifar10).
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.support import kept
from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.recipe import Recipe, load_recipe, override, preset
from onnx_shift.exporter.rounds import Level, Progress, Run, train
from onnx_shift.exporter.run_folder import RunFolder
from onnx_shift.exporter.training import choose_device, emulates

_ROOT = Path(__file__).resolve().parents[2]
FOLDER = _ROOT / ".bench" / "trainings"
LOGS = _ROOT / "docs" / "results" / "training"
DATA = os.environ.get("ONNX_SHIFT_CIFAR10", kept.DATA)


@dataclass(frozen=True)
class Training:
    """What a training changes of the preset, and about how many minutes it takes on one core or a graphics card.

    `extra` ones, further methods, replicates and networks, are shown where they are there and never trained unasked.
    """

    minutes: int
    changes: Mapping[str, Any]
    extra: bool = False
    needs: str = "one core"


_PRESET = "vgg16-quarter-cifar10"
#: For comparing methods: weights go back to an early step and layers may starve, as published; epochs enough for that.
_REWOUND = {
    "rewind": "weights",
    "rewind_steps": 586,
    "least_density": 0.0,
    "epochs": 12,
    "learning_rate": 0.2,
    "nesterov": False,
    "crop_padding": 4,
    "evaluate_every": 6,
}
#: Methods that need no level before the one they make: only a ratio that tells them apart, 64.
_HIGH = {**_REWOUND, "levels": 6, "first_level": 6}
#: A tenth of the work of the chain's: a fifth of the images, half of the epochs, one of them before the rewind.
_RESIDUAL = {
    **_REWOUND,
    "model": "resnet20-cifar",
    "width": 1.0,
    "train_images": 10_000,
    "epochs": 6,
    "rewind_steps": 79,
    "evaluate_every": 0,
    "exclude": (),
}
_RESIDUAL_HIGH = {**_RESIDUAL, "levels": 5, "first_level": 5}
#: Channel-sparse variants (docs/glossary.md): whole channels of the costly layers are emptied.
_REFILL = {
    "method": "refill",
    "rank": "cost",
    "refill_from": 2,
    "refill_widen": 1.2,
    "refill_multiple": 16,
}
#: Whole blocks of channels at level 2: few levels, the last much faster. Strong decay empties unneeded channels.
#: Eight epochs a level are too few for them: that lost 1.5 points where twelve lose 0.7.
_FAST = {
    **_REWOUND,
    **_REFILL,
    "levels": 2,
    "rewind": "learning-rate",
    "weight_decay": 5e-4,
}
#: Networks of full width with a longer training: minutes on a large graphics card, weeks on a core.
_FULL = {
    "width": 1.0,
    "epochs": 32,
    "batch_size": 512,
    "learning_rate": 0.4,
    "weight_decay": 5e-4,
    "crop_padding": 4,
    "least_density": 0.0,
    "rewind_steps": 196,
    "evaluate_every": 0,
}
_FULL_FAST = {**_FULL, **_REFILL, "levels": 3}
#: The same of a residual network: channels that an Add joins are emptied together, in blocks that fit its 16 to 64.
_RESNET = {**_FULL, "model": "resnet20-cifar", "exclude": (), "levels": 6}
_RESNET_FAST = {**_RESNET, **_REFILL, "refill_multiple": 4, "levels": 3}
_GPU = "a graphics card"
_FURTHER = ("snip", "grasp", "ntk-sap")

TRAININGS: dict[str, Training] = {
    "imp-preset": Training(65, {}),
    "imp": Training(65, _REWOUND),
    "fast": Training(20, _FAST),
    **{name: Training(14, {"method": name, **_HIGH}) for name in ("one-shot", "random", "synflow")},
    **{name: Training(14, {"method": name, **_HIGH}, extra=True) for name in _FURTHER},
    **{f"imp-seed-{seed}": Training(65, {**_REWOUND, "seed": seed}, extra=True) for seed in (1, 2)},
    **{
        f"{name}-seed-{seed}": Training(14, {"method": name, **_HIGH, "seed": seed}, extra=True)
        for name in ("one-shot", "random", "synflow", *_FURTHER)
        for seed in (1, 2)
    },
    "residual-imp": Training(10, {**_RESIDUAL, "levels": 5}),
    **{
        f"residual-{name}": Training(5, {**_RESIDUAL_HIGH, "method": name})
        for name in ("one-shot", "random", "synflow")
    },
    **{f"residual-{name}": Training(5, {**_RESIDUAL_HIGH, "method": name}, extra=True) for name in _FURTHER},
    **{
        f"peer-{peer}-{part}": Training(
            4,
            {"model": f"benchmarks.structured_peers:{peer}_{part}", "levels": 0},
            extra=part != 7,
        )
        for part in (7, 16, 4)
        for peer in ("l1", "similar")
    },
    "full-imp": Training(6, _FULL, extra=True, needs=_GPU),
    "full-fast": Training(3, _FULL_FAST, extra=True, needs=_GPU),
    **{f"full-imp-seed-{seed}": Training(6, {**_FULL, "seed": seed}, extra=True, needs=_GPU) for seed in (1, 2)},
    "resnet20-imp": Training(3, _RESNET, extra=True, needs=_GPU),
    "resnet20-fast": Training(2, _RESNET_FAST, extra=True, needs=_GPU),
}
#: What to train where a graphics card is there for ten minutes: five at once take hardly longer than one.
CARD = ("full-imp", "full-imp-seed-1", "full-imp-seed-2", "resnet20-imp", "resnet20-fast")


class TrainingError(OnnxShiftError):
    """A training that is not there and cannot be made."""


def recipe_of(name: str) -> Recipe:
    """Return the whole recipe of a training."""
    quick = TRAININGS[name].needs == _GPU or not emulates("bfloat16", choose_device("cpu"))
    precision = "bfloat16" if quick else "float32"
    return override(preset(_PRESET), data=DATA, precision=precision, **TRAININGS[name].changes)


def run_of(name: str) -> Run:
    """Return a training's run, with those of its levels whose models are there.

    Raises TrainingError, in one line, where none are.
    """
    run = finished_run(name)
    if run is None:
        raise TrainingError(missing(name))
    return run


def missing(*names: str) -> str | None:
    """Return which of these trainings is not there and how to make it, if one is not."""
    name = next((name for name in names if finished_run(name) is None), None)
    if name is None:
        return None
    training = TRAININGS[name]
    return (
        f"no training {name} below .bench/trainings or benchmarks/data; `python -m benchmarks train {name}` makes it "
        f"in about {training.minutes} minutes of {training.needs}"
    )


def train_missing(
    name: str,
    into: Path = FOLDER,
    images: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Return the run of a training below `into`, trained now where it is missing or was interrupted; with `images` a
    rehearsal on so many. Raises TrainingError.
    """
    recipe, done = recipe_of(name), _complete(name, into / name)
    if done is not None:  # perhaps made elsewhere, without the checkpoints that training would go on from
        return done
    if images is not None:
        small = {"train_images": images, "epochs": 1, "levels": 1, "first_level": 1, "precision": "float32"}
        recipe = override(recipe, **small)
    try:
        return train(recipe, into / name, progress=progress)
    except OnnxShiftError as error:
        raise TrainingError(
            f"the training {name} cannot be made ({error}); ONNX_SHIFT_CIFAR10 names the data"
        ) from error


def finished_run(name: str) -> Run | None:
    """Return a training's run: that below .bench with all its levels, else what is kept of it, else None."""
    run = _complete(name, FOLDER / name)
    if run is not None:
        return run
    folder = kept.unpacked(name)
    run = None if folder is None else _recorded(name, folder)
    return None if run is None else replace(run, levels=tuple(level for level in run.levels if level.onnx.exists()))


def _complete(name: str, path: Path) -> Run | None:
    run = _recorded(name, path)
    return run if run is not None and all(level.onnx.exists() for level in run.levels) else None


def recorded_run(name: str) -> Run | None:
    """Return a training's run as its log states it, made here or kept; its models may not be there."""
    found = (_recorded(name, where / name) for where in (FOLDER, kept.FOLDER, LOGS))
    return next((run for run in found if run is not None), None)


def _recorded(name: str, path: Path) -> Run | None:
    """Return the run in a folder, with all levels that its recipe asks for, where it is one of that training."""
    folder, recipe = RunFolder(path), recipe_of(name)
    table = folder.path / "levels.csv"
    if not folder.recipe.exists() or not table.exists():
        return None
    stored = load_recipe(folder.recipe)
    if replace(stored, data=recipe.data, precision=recipe.precision).hash != recipe.hash:
        return None
    with table.open(newline="") as file:
        levels = {int(row["level"]): _level(row, folder) for row in csv.DictReader(file)}
    wanted = [level for level in range(stored.levels + 1) if not 0 < level < recipe.first_level]
    if any(level not in levels for level in wanted):
        return None
    return Run(folder.path, stored, tuple(levels[level] for level in wanted))


def _level(row: Mapping[str, str], folder: RunFolder) -> Level:
    number, kept, total = int(row["level"]), int(row["kept"]), int(row["total"])
    accuracy, ratio = float(row["accuracy"]), float(row["ratio"])
    return Level(number, int(row["round"]), ratio, kept, total, accuracy, folder.level(number))


def dense_accuracy(run: Run) -> float:
    """Return the accuracy (0..1) of a run's dense network as its log states it: the model may not be kept."""
    with (run.folder / "levels.csv").open(newline="") as file:
        return next(float(row["accuracy"]) for row in csv.DictReader(file) if row["level"] == "0")


def training_hours(run: Run) -> float:
    """Return how long all epochs of a run take, one after the other, up to its last level, by the median epoch: so
    that neither a pause nor what else the machine did meanwhile counts.
    """
    last = run.levels[-1].round
    with (run.folder / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file) if int(row["round"]) <= last]
    return statistics.median(seconds) * len(seconds) / 3600


class _TimeIsUpError(Exception):
    """A training has to stop where it is."""


def main(arguments: Sequence[str]) -> int:
    """`python -m benchmarks train`: train what is missing of the named trainings, and say what there is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks train", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="card: those for a graphics card; default: all others")
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER", help="default: .bench/trainings")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="so many, each in a process of its own")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="then stop; all can be resumed")
    parser.add_argument(
        "--images", type=int, metavar="N", help="a rehearsal: N images, one epoch, the first two levels"
    )
    given = parser.parse_args(arguments)
    names = [part for name in given.names for part in (CARD if name == "card" else [name])]
    names = names or [name for name, training in TRAININGS.items() if not training.extra]
    unknown = [name for name in names if name not in TRAININGS]
    if unknown:
        sys.stderr.write(f"error: no training {unknown[0]}; there are {', '.join(TRAININGS)}\n")
        return 1
    if given.at_once > 1:
        options = [option for option in arguments if option not in given.names]
        with ThreadPoolExecutor(given.at_once) as pool:
            command = [sys.executable, "-m", "benchmarks", "train"]
            return max(
                pool.map(lambda name: subprocess.run([*command, name, *options, "--at-once", "1"]).returncode, names)
            )
    ends_s = time.monotonic() + 60 * given.minutes

    def look(_: Progress) -> None:
        if time.monotonic() > ends_s:
            raise _TimeIsUpError

    for name in names:
        training = TRAININGS[name]
        sys.stderr.write(f"{name}: about {training.minutes} minutes of {training.needs} where it is missing\n")
        try:
            run = train_missing(name, given.into, given.images, look)
        except OnnxShiftError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        except _TimeIsUpError:
            sys.stderr.write(f"{name}: stopped after {given.minutes:g} minutes; the same command resumes it\n")
            continue
        accuracies = ", ".join(f"{level.ratio:.0f}x {level.accuracy:.2%}" for level in run.levels)
        sys.stdout.write(f"{name}: {accuracies}\n")
    return 0
