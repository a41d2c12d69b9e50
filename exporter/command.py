"""`onnx-shift train`: from options to a run, with what the user sees meanwhile."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from onnx_shift.exporter.progress import shown
from onnx_shift.exporter.recipe import Recipe, RecipeError, load_recipe, override, parse_settings
from onnx_shift.exporter.recipe import preset as find_preset
from onnx_shift.exporter.rounds import Level, Run, train
from onnx_shift.exporter.run_folder import RunFolder
from onnx_shift.exporter.training import choose_device, emulates
from onnx_shift.files import check_folder

INTERRUPTED = 130


def train_command(
    preset: str | None,
    output: Path | None,
    changes: Mapping[str, Any],
    *,
    replicates: int,
    device: str,
    tensorboard: bool,
    out: Console,
    log: Console,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Run what the options ask for; returns the finished runs, JSON-ready."""
    given = {key: value for key, value in changes.items() if value not in (None, [], ())}  # what was asked for
    given |= parse_settings(given.pop("settings", ()))
    base = _base(preset, output, given)
    recipe = override(base, **given)
    folder = output or Path("runs") / recipe.preset
    check_folder(folder)
    if emulates(recipe.precision, choose_device(device)):
        log.print(f"--precision {recipe.precision}: this processor only emulates it; float32 is far faster here")
    if "learning_rate" not in given and recipe.learning_rate != base.learning_rate:
        log.print(f"--init-from: learning rate {recipe.learning_rate:g}, a tenth of the preset's, unless one is given")
    runs = []
    for replicate in range(replicates):
        chosen = dataclasses.replace(recipe, seed=recipe.seed + replicate)
        part = folder / f"seed-{chosen.seed}" if replicates > 1 else folder
        run = _train(chosen, part, device, tensorboard, out, log, quiet)
        runs.append(
            {
                "folder": str(run.folder),
                "stopped": run.stopped,
                "levels": [dataclasses.asdict(level) | {"onnx": str(level.onnx)} for level in run.levels],
            }
        )
    return runs


def _base(preset: str | None, output: Path | None, changes: Mapping[str, Any]) -> Recipe:
    if preset is not None:
        return find_preset(preset)
    stored = None if output is None else output / "recipe.json"
    if stored is not None and stored.exists():
        return load_recipe(stored)
    if changes.get("model") is None or changes.get("data") is None:
        raise RecipeError("name a PRESET, or both --model and --data")
    return Recipe()


def _train(
    recipe: Recipe, folder: Path, device: str, tensorboard: bool, out: Console, log: Console, quiet: bool
) -> Run:
    def level_done(level: Level) -> None:
        if not quiet:
            ratio = "dense" if level.level == 0 else f"ratio {level.ratio:.4g}"
            out.print(f"{level.onnx}  {ratio:<12} {level.kept:>10,} weights  accuracy {level.accuracy:.2%}")

    try:
        with shown(log) as progress:
            run = train(
                recipe,
                folder,
                device=device,
                progress=progress,
                level_done=level_done,
                tensorboard=tensorboard,
            )
    except KeyboardInterrupt:
        trained = RunFolder(folder).last.parent.exists()
        where = f"from the last finished epoch in {folder}" if trained else "from the start: nothing was trained yet"
        log.print(f"interrupted; the same command resumes {where}")
        raise typer.Exit(INTERRUPTED) from None
    if run.stopped:
        log.print(f"stopped early: {run.stopped}")
    return run
