"""Training from given weights, by other optimisers and losses, on data of the user's own."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from onnx_shift.exporter.checkpoint import CheckpointError, load_checkpoint
from onnx_shift.exporter.recipe import Recipe, RecipeError, override, preset
from onnx_shift.exporter.starting import load_weights
from onnx_shift.exporter.training import TrainingError
from onnx_shift.models.registry import build
from onnx_shift.portfolio.data import DataError, open_dataset
from tests.exporter.conftest import Start, same, stored_weights


@pytest.mark.parametrize("source", ["level-00.onnx", "checkpoints/round-00.pt", "plain.pt"])
def test_levels_go_on_from_the_given_weights(tiny_recipe: Recipe, run: Start, tmp_path: Path, source: str) -> None:
    first = run(override(tiny_recipe, levels=0), "first")
    trained = stored_weights(first.folder, 0)
    torch.save(nn.Module.state_dict(_model(tiny_recipe, trained)), first.folder / "plain.pt")
    recipe = override(tiny_recipe, init_from=str(first.folder / source), levels=2)
    assert (recipe.rewind, recipe.rewind_steps) == ("learning-rate", 0)
    found = run(recipe, "second")
    assert [level.level for level in found.levels] == [0, 1, 2]
    assert found.levels[0].accuracy == first.levels[0].accuracy
    start = stored_weights(found.folder, 0)
    assert same({name: value for name, value in start.items() if value.is_floating_point()}, trained)
    pruned = load_checkpoint(found.folder / "checkpoints/round-01.pt")
    for name, kept in pruned["mask"].items():  # trained on from there, not anew
        assert torch.corrcoef(torch.stack([pruned["model"][name][kept], trained[name][kept]]))[0, 1] > 0.5


def test_trained_weights_get_a_tenth_of_the_learning_rate_for_fresh_ones_unless_one_is_given() -> None:
    recipe = override(preset("digits"), init_from="a.pt")
    assert recipe.learning_rate == preset("digits").learning_rate / 10
    assert override(recipe, epochs=3).learning_rate == recipe.learning_rate  # once
    assert override(preset("digits"), init_from="a.pt", learning_rate=0.2).learning_rate == 0.2


@pytest.mark.slow
def test_accuracy_on_the_digits_does_not_fall_when_half_the_weights_of_a_trained_network_go(run: Start) -> None:
    first = run(override(preset("digits"), levels=0), "first")
    found = run(override(preset("digits"), init_from=str(first.folder / "level-00.onnx"), levels=1), "second")
    assert found.levels[1].accuracy >= first.levels[0].accuracy - 0.005


def _model(recipe: Recipe, state: dict[str, torch.Tensor]) -> nn.Module:
    model = build(recipe.model, num_classes=4, in_channels=1, width=recipe.width)
    model.load_state_dict(state)
    return model


def test_weights_of_another_model_are_refused(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    folder = run(override(tiny_recipe, levels=0)).folder
    other = build(tiny_recipe.model, num_classes=4, in_channels=1, width=0.5)
    with pytest.raises(CheckpointError, match=r"level-00.onnx: its .* is \(.*, the model's \("):
        load_weights(other, folder / "level-00.onnx")
    with pytest.raises(CheckpointError, match=r"level-00.onnx: holds no .*another model, or was folded or pruned"):
        load_weights(build("resnet20-cifar", num_classes=4, in_channels=1), folder / "level-00.onnx")
    with pytest.raises(RecipeError, match=r"--init-from a.pt: its early weights are not known"):
        override(tiny_recipe, init_from="a.pt", rewind="weights")


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_other_optimisers_learn_and_keep_removed_weights_at_zero(
    tiny_recipe: Recipe, run: Start, optimizer: str
) -> None:
    found = run(override(tiny_recipe, optimizer=optimizer, learning_rate=0.01, levels=1))
    checkpoint = load_checkpoint(found.folder / "checkpoints/round-01.pt")
    assert all((checkpoint["model"][name][~kept] == 0).all() for name, kept in checkpoint["mask"].items())
    assert not same(checkpoint["model"], stored_weights(run(override(tiny_recipe, levels=1), "sgd").folder, 1))
    with pytest.raises(RecipeError, match=r"--optimizer lion: choose one of sgd, adam, adamw"):
        override(tiny_recipe, optimizer="lion")


OWN = """
import numpy as np, torch.nn.functional as F
def mean(scores, labels): return F.cross_entropy(scores, labels)
def each(scores, labels): return F.cross_entropy(scores, labels, reduction="none")
def wrong(scores, labels): return scores
def images():
    pixels = np.arange(40 * 64, dtype=np.uint8).reshape(40, 1, 8, 8)
    return pixels[:30], np.arange(30) % 3, pixels[30:], np.arange(10) % 3
def floats():
    return tuple(np.zeros((4, 1, 8, 8)) if part % 2 == 0 else np.zeros(4) for part in range(4))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return "own_parts"


def test_a_loss_of_ones_own_is_the_mean_or_one_for_each_image(tiny_recipe: Recipe, run: Start, own: str) -> None:
    recipe = override(tiny_recipe, levels=0)
    usual, mean, each = (
        stored_weights(run(override(recipe, loss=loss), f"run-{loss}").folder, 0)
        for loss in (None, f"{own}:mean", f"{own}:each")
    )
    assert same(usual, each)
    assert all(torch.allclose(usual[name].float(), mean[name].float(), atol=1e-4) for name in usual)
    with pytest.raises(TrainingError, match=rf"--loss {own}:wrong: gives \(32, 4\), not the mean loss"):
        run(override(recipe, loss=f"{own}:wrong"), "wrong")


def test_data_may_come_from_a_function(own: str) -> None:
    data = open_dataset(f"{own}:images")
    assert (len(data.train), len(data.test), data.class_names) == (30, 10, ("0", "1", "2"))
    assert len(open_dataset(f"{own}:images", train_images=12).train) == 12
    with pytest.raises(DataError, match=rf"--data {own}:floats: its images are float64"):
        open_dataset(f"{own}:floats")


def test_recipes_of_older_runs_keep_their_hash(tiny_recipe: Recipe) -> None:
    assert Recipe().hash == "98976bb1820e48d6"
    assert override(tiny_recipe, optimizer="adam").hash != tiny_recipe.hash
