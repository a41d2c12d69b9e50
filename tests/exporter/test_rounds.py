"""Whole runs: lottery-ticket rules, and resuming after any interruption."""

import csv
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from onnx_shift.exporter.checkpoint import load_checkpoint
from onnx_shift.exporter.recipe import Recipe, RecipeError, load_recipe, override
from onnx_shift.exporter.rounds import train
from onnx_shift.exporter.training import Place, Trainer
from onnx_shift.onnx_pruner import prune
from onnx_shift.portfolio.data import open_dataset
from tests.exporter.conftest import Start, StoppedError, same, stop_at, stored_weights


def test_a_run_leaves_what_it_promises(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    result = run(tiny_recipe, tensorboard=True)
    assert [(level.level, level.round, level.kept) for level in result.levels] == [
        (0, 0, 61_380),
        (1, 1, 30_690),
        (2, 2, 15_345),
    ]
    assert [level.ratio for level in result.levels] == [1, 2, 4]
    folder = tmp_path / "run"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["epoch"]) for row in rows] == [(str(r), str(e)) for r in range(3) for e in (1, 2)]
    assert rows[5]["ratio"] == "4.0"
    assert float(rows[5]["test_accuracy"]) == result.levels[2].accuracy
    with (folder / "levels.csv").open() as file:
        assert [row["onnx"] for row in csv.DictReader(file)] == [f"level-0{level}.onnx" for level in range(3)]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert not (folder / "checkpoints" / "last.pt").exists()
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "level-02.onnx").metadata_props}
    assert metadata["onnx_shift.ratio"] == "4"
    assert metadata["onnx_shift.level"] == "2"
    assert float(metadata["onnx_shift.accuracy"]) == result.levels[2].accuracy
    assert json.loads(metadata["onnx_shift.class_names"]) == ["dark", "dim", "light", "bright"]
    assert metadata["onnx_shift.recipe_hash"] == tiny_recipe.hash


def test_every_level_starts_from_the_survivors_of_the_rewind_checkpoint_bit_for_bit(
    tiny_recipe: Recipe, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[int, dict[str, torch.Tensor]] = {}
    masks: dict[int, dict[str, torch.Tensor]] = {}
    run_epoch = Trainer.run_epoch

    def spy(trainer: Trainer, place: Place, before_step: Callable[[int], None]) -> float:
        if place.round not in starts:
            starts[place.round] = {k: v.clone() for k, v in trainer.model.state_dict().items()}
            masks[place.round] = trainer.mask
        return run_epoch(trainer, place, before_step)

    monkeypatch.setattr(Trainer, "run_epoch", spy)
    run(override(tiny_recipe, levels=3))
    rewind = load_checkpoint(tmp_path / "run/checkpoints/rewind.pt")
    assert rewind["step"] == 1
    assert not same(rewind["model"], starts[0])
    for round_ in (1, 2, 3):
        for name, value in rewind["model"].items():
            kept = masks[round_].get(name)
            expected = value if kept is None else torch.where(kept, value, torch.zeros_like(value))
            assert torch.equal(starts[round_][name], expected)
            if kept is not None:
                assert not (kept & ~masks[round_ - 1][name]).any()
                after = stored_weights(tmp_path / "run", round_)[name]
                assert (after[~kept] == 0).all()
                assert not torch.signbit(after[~kept]).any()


def test_with_learning_rate_rewinding_the_survivors_stay_as_they_were_trained(
    tiny_recipe: Recipe, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[int, tuple[int, dict[str, torch.Tensor]]] = {}
    run_epoch = Trainer.run_epoch

    def spy(trainer: Trainer, place: Place, before_step: Callable[[int], None]) -> float:
        weights = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        starts.setdefault(place.round, (place.step, weights))
        return run_epoch(trainer, place, before_step)

    monkeypatch.setattr(Trainer, "run_epoch", spy)
    run(override(tiny_recipe, rewind="learning-rate"))
    for round_ in (1, 2):
        step, weights = starts[round_]
        assert step == 1
        for name, kept in load_checkpoint(tmp_path / f"run/checkpoints/round-{round_:02d}.pt")["mask"].items():
            before = stored_weights(tmp_path / "run", round_ - 1)[name]
            assert torch.equal(weights[name], torch.where(kept, before, 0.0))


def test_refill_leaves_nothing_of_an_empty_channel(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    result = run(override(tiny_recipe, method="refill", weight_decay=0.0))
    checkpoint = load_checkpoint(tmp_path / "run/checkpoints/round-02.pt")
    emptied = 0
    for name, kept in checkpoint["mask"].items():
        empty = ~kept.flatten(1).any(dim=1)
        emptied += int(empty.sum())
        norm = name.replace("conv.weight", "bn")
        for part in ("weight", "bias"):
            values = checkpoint["model"][f"{norm}.{part}"]
            assert torch.equal(values == 0, empty)
    assert emptied > 0
    report = prune(result.levels[2].onnx, align=1).report
    assert sum(layer.before[0] - layer.after[0] for layer in report.layers) == emptied


def test_one_shot_methods_may_leave_out_the_first_levels(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    result = run(override(tiny_recipe, method="one-shot", levels=3, first_level=3))
    assert [level.level for level in result.levels] == [0, 3]
    assert result.levels[1].kept == result.levels[0].kept // 8
    assert result.levels[1].onnx.name == "level-03.onnx"
    assert len(list((tmp_path / "run/checkpoints").glob("round-*.pt"))) == 2
    with pytest.raises(RecipeError, match=r"first_level=3: method imp prunes level by level"):
        run(override(tiny_recipe, levels=3, first_level=3), folder="other")
    with pytest.raises(RecipeError, match=r"first_level=3: must lie within"):
        override(tiny_recipe, levels=2, first_level=3)


def test_magnitude_is_ranked_over_all_layers(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    run(tiny_recipe)
    dense = stored_weights(tmp_path / "run", 0)
    mask = load_checkpoint(tmp_path / "run/checkpoints/round-01.pt")["mask"]
    assert "fc.weight" not in mask
    kept = torch.cat([dense[name][kept].abs() for name, kept in mask.items()])
    removed = torch.cat([dense[name][~kept].abs() for name, kept in mask.items()])
    assert kept.min() >= removed.max()


@pytest.mark.parametrize("method", ["one-shot", "random", "snip"])
def test_one_shot_methods_choose_every_level_from_the_same_weights(
    method: str, tiny_recipe: Recipe, run: Start, tmp_path: Path
) -> None:
    result = run(override(tiny_recipe, method=method))
    assert [level.kept for level in result.levels] == [61_380, 30_690, 15_345]
    step = load_checkpoint(tmp_path / "run/checkpoints/rewind.pt")["step"]
    assert step == (1 if method == "one-shot" else 0)  # pruning at initialisation rewinds nowhere


@pytest.mark.parametrize("augmentation", ["shift", "resized-crop"])
def test_a_run_stopped_anywhere_ends_bit_identical(
    augmentation: str, tiny_recipe: Recipe, run: Start, tmp_path: Path
) -> None:
    recipe = override(tiny_recipe, levels=1, augmentation=augmentation)
    whole = run(recipe, "whole")
    for batch in (1, 2, 4, 6, 7, 9, 11):
        with pytest.raises(StoppedError):
            run(recipe, f"stopped-{batch}", progress=stop_at(batch))
        resumed = run(recipe, f"stopped-{batch}")
        assert [level.accuracy for level in resumed.levels] == [level.accuracy for level in whole.levels]
        for round_ in (0, 1):
            assert same(
                stored_weights(tmp_path / "whole", round_), stored_weights(tmp_path / f"stopped-{batch}", round_)
            )
        assert (tmp_path / "whole/level-01.onnx").read_bytes() == (
            tmp_path / f"stopped-{batch}/level-01.onnx"
        ).read_bytes()


class _Foreign(nn.Module):
    """Draws from every generator, and keeps a tensor of its last batch, as losses beside the class scores do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
        self.beside: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = x * random.random() + np.random.random() + torch.rand(())
        self.beside = self.layers(x)
        return self.beside


def test_whatever_a_foreign_forward_draws_and_keeps_a_stopped_run_ends_bit_identical(
    tiny_recipe: Recipe, run: Start, tmp_path: Path
) -> None:
    recipe = override(tiny_recipe, levels=1, model=f"{__name__}:_Foreign", exclude=())
    run(recipe, "whole")
    with pytest.raises(StoppedError):
        run(recipe, "stopped", progress=stop_at(9))
    run(recipe, "stopped")
    assert same(stored_weights(tmp_path / "whole", 1), stored_weights(tmp_path / "stopped", 1))


def test_at_most_one_epoch_is_lost(tiny_recipe: Recipe, run: Start) -> None:
    recipe = override(tiny_recipe, levels=0, epochs=4)
    with pytest.raises(StoppedError):
        run(recipe, progress=stop_at(3 * 3 + 2))  # in the last of four epochs of three batches
    places: list[int] = []
    run(recipe, progress=lambda progress: places.append(progress.epoch))
    assert places == [4, 4, 4]


KILLED = """
import os, signal, sys
from onnx_shift.exporter import override, preset, train
import torch
torch.set_num_threads(1)
recipe = override(preset("digits"), levels=1, epochs=2, batch_size=256, width=0.25, rewind_steps=1)
seen = 0
def count(progress):
    global seen
    seen += 1
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
train(recipe, sys.argv[1], device="cpu", progress=count)
"""


def test_sigkill_then_the_same_command_ends_bit_identical(tmp_path: Path) -> None:
    def start(folder: str, batch: int) -> int:
        command = [sys.executable, "-c", KILLED, str(tmp_path / folder), str(batch)]
        return subprocess.run(command, check=False, capture_output=True, timeout=120).returncode

    assert start("whole", 0) == 0
    assert start("killed", 8) == -signal.SIGKILL
    (tmp_path / "killed/checkpoints/.last.pt.stray.tmp").write_bytes(b"what the kill left half-written")
    assert start("killed", 0) == 0
    assert same(stored_weights(tmp_path / "whole", 1), stored_weights(tmp_path / "killed", 1))
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_a_ratio_that_leaves_no_weight_is_refused(tiny_recipe: Recipe, run: Start) -> None:
    with pytest.raises(RecipeError, match=r"--levels 20: ratio 1048576 leaves none of \d+ weights"):
        run(override(tiny_recipe, levels=20))


def test_it_stops_when_the_accuracy_cannot_be_reached(
    tiny_recipe: Recipe, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([0.7, 0.9, 0.8, 0.6])
    monkeypatch.setattr(Trainer, "evaluate", lambda trainer: next(measured))
    result = run(override(tiny_recipe, levels=4, min_accuracy=0.85, evaluate_every=0))
    assert [level.accuracy for level in result.levels] == [
        0.7,
        0.9,
        0.8,
    ]  # the dense model alone proves nothing
    assert result.stopped == "level 2 reached 80.00%, below --min-accuracy 85.00%, and accuracy falls"
    measured = iter([0.9, 0.8])
    recipe = override(tiny_recipe, levels=1, min_accuracy=0.85, evaluate_every=0)
    assert run(recipe, "whole").stopped == ""  # at its last level there is nothing to stop
    measured = iter([0.9, 0.8])
    recipe = override(recipe, method="one-shot", levels=3, first_level=3)
    assert run(recipe, "skipping").stopped == ""


def test_seeds_make_runs_differ_and_nothing_else_does(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    recipe = override(tiny_recipe, levels=0)
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        torch.manual_seed(seed * len(name))  # the caller's own chance must not matter
        run(override(recipe, seed=seed), name)
    assert same(stored_weights(tmp_path / "one", 0), stored_weights(tmp_path / "again", 0))
    assert not same(stored_weights(tmp_path / "one", 0), stored_weights(tmp_path / "two", 0))


def test_the_stored_recipe_runs_again(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    run(override(tiny_recipe, levels=1))
    run(load_recipe(tmp_path / "run/recipe.json"), "again")
    assert same(stored_weights(tmp_path / "run", 1), stored_weights(tmp_path / "again", 1))


def test_images_decoded_on_demand_train_the_same_weights(
    tiny_recipe: Recipe, tmp_path: Path, write_parquet: Callable[[Path], Path]
) -> None:
    path = str(write_parquet(tmp_path / "train.parquet"))
    recipe = override(tiny_recipe, levels=0)
    for name, limit in (("held", 1 << 30), ("decoded", 100)):
        data = open_dataset(path, memory_limit_bytes=limit)
        train(recipe, tmp_path / name, device="cpu", dataset=data)
    assert same(stored_weights(tmp_path / "held", 0), stored_weights(tmp_path / "decoded", 0))
