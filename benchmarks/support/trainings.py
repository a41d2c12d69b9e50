"""The trainings on CIFAR-10 that benchmarks share: `python -m benchmarks.support.trainings [NAME ...]` makes what is
missing.

Each is kept below .bench/trainings/NAME and recognised by its recipe, but for the path of the data and the precision,
which follows the processor: a run made elsewhere with `onnx-shift train` counts once its folder is put there, and no
change of our code makes it out of date.
What it logged is kept in docs/results/training/NAME, which is enough for figures that need no model.
The data set is named by ONNX_SHIFT_CIFAR10 (a parquet folder or a hub name; default: uoft-cs/cifar10).
"""

import csv
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.recipe import Recipe, load_recipe, override, preset
from onnx_shift.exporter.rounds import Level, Run, train
from onnx_shift.exporter.run_folder import RunFolder
from onnx_shift.exporter.training import choose_device, emulates

_ROOT = Path(__file__).resolve().parents[2]
FOLDER = _ROOT / ".bench" / "trainings"
LOGS = _ROOT / "docs" / "results" / "training"
DATA = os.environ.get("ONNX_SHIFT_CIFAR10", "uoft-cs/cifar10")


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
}


class TrainingError(OnnxShiftError):
    """A training that is not there and cannot be made."""


def recipe_of(name: str) -> Recipe:
    """Return the whole recipe of a training."""
    precision = "float32" if emulates("bfloat16", choose_device("cpu")) else "bfloat16"
    return override(preset(_PRESET), data=DATA, precision=precision, **TRAININGS[name].changes)


def run_of(name: str) -> Run:
    """Return the finished run of a training, trained now where it is missing or was interrupted.

    Raises TrainingError, in one line, where that fails, for want of data as a rule.
    """
    finished = finished_run(name)
    if finished is not None:
        return finished
    training = TRAININGS[name]
    sys.stderr.write(f"training {name} below .bench/trainings: about {training.minutes} minutes of {training.needs}\n")
    try:
        return train(recipe_of(name), FOLDER / name)
    except OnnxShiftError as error:
        raise TrainingError(
            f"the training {name} is not below .bench/trainings and cannot be made ({error}); "
            "ONNX_SHIFT_CIFAR10 names the data"
        ) from error


def finished_run(name: str) -> Run | None:
    """Return a training's run where all its levels are there, else None."""
    run = _recorded(name, FOLDER)
    return run if run is not None and all(level.onnx.exists() for level in run.levels) else None


def finished_levels(name: str, numbers: Sequence[int]) -> list[Level] | None:
    """Return these levels of a training where their models are there, else None."""
    run = _recorded(name, FOLDER)
    levels = [run.levels[number] for number in numbers] if run is not None else []
    return levels if levels and all(level.onnx.exists() for level in levels) else None


def recorded_run(name: str) -> Run | None:
    """Return a training's run as its log states it, made here or kept in docs/results; its models may not be there."""
    return _recorded(name, FOLDER) or _recorded(name, LOGS)


def _recorded(name: str, where: Path) -> Run | None:
    folder, recipe = RunFolder(where / name), recipe_of(name)
    table = folder.path / "levels.csv"
    if not folder.recipe.exists() or not table.exists():
        return None
    stored = load_recipe(folder.recipe)
    if replace(stored, data=recipe.data, precision=recipe.precision).hash != recipe.hash:
        return None
    with table.open(newline="") as file:
        levels = {int(row["level"]): _level(row, folder) for row in csv.DictReader(file)}
    wanted = [level for level in range(recipe.levels + 1) if not 0 < level < recipe.first_level]
    if any(level not in levels for level in wanted):
        return None
    return Run(folder.path, stored, tuple(levels[level] for level in wanted))


def _level(row: Mapping[str, str], folder: RunFolder) -> Level:
    number, kept, total = int(row["level"]), int(row["kept"]), int(row["total"])
    accuracy, ratio = float(row["accuracy"]), float(row["ratio"])
    return Level(number, int(row["round"]), ratio, kept, total, accuracy, folder.level(number))


def training_hours(run: Run) -> float:
    """Return how long all epochs of a run take, one after the other, up to its last level, by the median epoch: so
    that neither a pause nor what else the machine did meanwhile counts.
    """
    last = run.levels[-1].round
    with (run.folder / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file) if int(row["round"]) <= last]
    return statistics.median(seconds) * len(seconds) / 3600


def main(names: list[str]) -> int:
    """Train what is missing of `names`, by default of all that benchmarks need, and say what there is."""
    unknown = [name for name in names if name not in TRAININGS]
    if unknown:
        sys.stderr.write(f"error: no training {unknown[0]}; there are {', '.join(TRAININGS)}\n")
        return 1
    for name in names or [name for name, training in TRAININGS.items() if not training.extra]:
        try:
            run = run_of(name)
        except OnnxShiftError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        accuracies = ", ".join(f"{level.ratio:.0f}x {level.accuracy:.2%}" for level in run.levels)
        sys.stdout.write(f"{name}: {accuracies}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
