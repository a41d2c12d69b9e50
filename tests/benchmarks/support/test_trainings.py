"""Benchmarks take trainings that were made elsewhere, and say in one line what is missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
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
    assert trainings.train_missing("random", folder) == run  # nothing is trained again, though no checkpoint came along


@pytest.mark.parametrize(("levels", "changes"), [([0], {}), ([0, 6], {"seed": 3})])
def test_an_unfinished_run_and_one_of_another_recipe_do_not(
    folder: Path, levels: list[int], changes: dict[str, Any]
) -> None:
    place(folder, "random", levels, **changes)
    assert trainings.finished_run("random") is None


def test_a_training_without_data_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object, **__: object) -> None:
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


def test_a_training_stops_when_its_time_is_up_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainings, "DATA", ten_images(tmp_path / "ten.npz"))
    command = ["resnet20-fast", "--images", "10", "--into", str(tmp_path)]
    assert trainings.main([*command, "--minutes", "0"]) == 0
    assert "resnet20-fast: stopped after 0 minutes; the same command resumes it" in capsys.readouterr().err
    assert trainings.main(command) == 0
    assert capsys.readouterr().out.startswith("resnet20-fast: 1x ")
    assert sorted(path.name for path in tmp_path.glob("*/*.onnx")) == ["level-00.onnx", "level-01.onnx"]


@pytest.mark.slow
def test_what_a_graphics_card_trains_is_rehearsed_on_ten_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONNX_SHIFT_CIFAR10", ten_images(tmp_path / "ten.npz"))
    assert trainings.main(["card", "--images", "10", "--into", str(tmp_path), "--at-once", "2"]) == 0
    assert sorted(line.split(":")[0] for line in capfd.readouterr().out.splitlines()) == sorted(trainings.CARD)
    assert len(list(tmp_path.glob("*/level-01.onnx"))) == len(trainings.CARD)


def ten_images(path: Path) -> str:
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (20, 3, 32, 32), np.uint8), np.arange(20) % 10
    np.savez(path, train_images=pixels[:10], train_labels=labels[:10], test_images=pixels[10:], test_labels=labels[10:])
    return str(path)
