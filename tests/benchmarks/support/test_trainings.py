"""Benchmarks take trainings that were made elsewhere, and say in one line what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from benchmarks.support import kept, trainings
from onnx_shift.exporter.recipe import override
from onnx_shift.portfolio.data import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trainings, "FOLDER", tmp_path)
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    return tmp_path


def place(folder: Path, name: str, levels: list[int], **changes: Any) -> None:
    """Write what a run of training `name` leaves, with another path of the data and precision of the processor."""
    run = folder / name
    run.mkdir()
    recipe = override(trainings.recipe_of(name), data="elsewhere", precision="float16", **changes)
    (run / "recipe.json").write_text(recipe.to_json())
    rows = [f"{level},{level},{2**level},{100 >> level},100,0.{80 + level},level-{level:02d}.onnx" for level in levels]
    (run / "levels.csv").write_text("\n".join(["level,round,ratio,kept,total,accuracy,onnx", *rows]) + "\n")
    (run / "metrics.csv").write_text("round,seconds\n0,1800\n6,3600\n9,60\n")
    for level in levels:
        (run / f"level-{level:02d}.onnx").write_bytes(b"")


def test_a_run_made_elsewhere_counts(folder: Path) -> None:
    place(folder, "random", [0, 6])
    run = trainings.run_of("random")
    assert [(level.level, level.ratio, level.accuracy) for level in run.levels] == [
        (0, 1, 0.80),
        (6, 64, 0.86),
    ]
    assert run.levels[1].onnx == folder / "random" / "level-06.onnx"
    assert trainings.training_hours(run) == 1.5


@pytest.mark.parametrize(("levels", "changes"), [([0], {}), ([0, 6], {"seed": 3})])
def test_an_unfinished_run_and_one_of_another_recipe_do_not(
    folder: Path, levels: list[int], changes: dict[str, Any]
) -> None:
    place(folder, "random", levels, **changes)
    assert trainings.finished_run("random") is None


def test_a_training_without_data_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object) -> None:
        raise DataError("uoft-cs/cifar10: cannot be opened as a data set")

    monkeypatch.setattr(trainings, "train", train)
    assert trainings.main(["synflow"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: the training synflow cannot be made (uoft-cs/cifar10: cannot be opened as a data set); "
        "ONNX_SHIFT_CIFAR10 names the data"
    )


def test_an_unknown_training_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert trainings.main(["nothing"]) == 1
    assert capsys.readouterr().err.startswith("error: no training nothing; there are imp-preset, imp, ")


def test_every_training_has_a_recipe() -> None:
    hashes = {trainings.recipe_of(name).hash for name in trainings.TRAININGS}
    assert len(hashes) == len(trainings.TRAININGS)
    assert json.loads(trainings.recipe_of("imp").to_json())["levels"] == 8
