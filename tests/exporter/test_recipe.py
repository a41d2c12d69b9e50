"""Presets as published, overriding, storing, and the rounds that end each level."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_shift.exporter.recipe import (
    PRESETS,
    Recipe,
    RecipeError,
    check,
    load_recipe,
    override,
    parse_settings,
    preset,
    rounds_of_levels,
)


def test_vgg16_is_the_published_recipe() -> None:
    recipe = PRESETS["vgg16-cifar10"]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (160, 128, 0.1)
    assert (recipe.milestones, recipe.decay) == ((80, 120), 0.1)
    assert (recipe.momentum, recipe.weight_decay, recipe.warmup_epochs) == (0.9, 1e-4, 0)
    assert (recipe.prune_share, recipe.rewind_steps, recipe.exclude) == (0.2, 2000, ("fc.weight",))
    assert (recipe.augmentation, recipe.crop_padding) == ("flip-crop", 4)


def test_resnet50_on_tiny_imagenet_is_the_published_recipe() -> None:
    recipe = PRESETS["resnet50-tinyimagenet"]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (200, 256, 0.2)
    assert (recipe.milestones, recipe.warmup_epochs, recipe.exclude) == ((100, 150), 5, ())
    assert (recipe.crop_scale, recipe.crop_ratio) == ((0.1, 1.0), (0.8, 1.25))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_sound_and_survives_storing(name: str, tmp_path: Path) -> None:
    recipe = check(preset(name))
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json())
    assert load_recipe(path) == recipe == preset(str(path))
    assert len(rounds_of_levels(recipe, iterative=True)) == recipe.levels + 1


def test_a_fifth_per_round_meets_the_ratios_at_the_papers_rounds() -> None:
    rounds = rounds_of_levels(PRESETS["vgg16-cifar10"], iterative=True)
    assert rounds == (0, 3, 6, 9, 12, 16, 19, 22, 25)
    assert rounds_of_levels(PRESETS["digits"], iterative=True) == tuple(range(9))
    assert rounds_of_levels(PRESETS["vgg16-cifar10"], iterative=False) == tuple(range(9))
    with pytest.raises(RecipeError, match=r"--prune-share 0\.9"):
        rounds_of_levels(replace(PRESETS["digits"], prune_share=0.9), iterative=True)


def test_other_epochs_move_milestones_warmup_and_rewinding() -> None:
    recipe = override(PRESETS["vgg16-cifar10"], epochs=16)
    assert (recipe.milestones, recipe.rewind_steps) == ((8, 12), 200)
    assert override(PRESETS["resnet50-tinyimagenet"], epochs=100).warmup_epochs == 2.5
    assert override(PRESETS["vgg16-cifar10"], epochs=16, rewind_steps=7).rewind_steps == 7


def test_the_hash_changes_with_every_field_but_levels() -> None:
    recipe = PRESETS["digits"]
    assert replace(recipe, levels=3).hash == recipe.hash != replace(recipe, block=2).hash
    assert preset("vgg16-cifar10").hash == "0eb5ab517040eaff"  # runs of versions before go on
    assert len({recipe.hash, replace(recipe, seed=1).hash, replace(recipe, method="snip").hash}) == 3


def test_whole_numbers_are_the_same_recipe_written_either_way() -> None:
    recipe = preset("vgg16-cifar10")
    assert override(recipe, **parse_settings(["milestones=80,120"])).hash == recipe.hash
    assert override(recipe, learning_rate=1).hash == override(recipe, learning_rate=1.0).hash


def test_any_field_can_be_set_by_name() -> None:
    texts = [
        "milestones=3,4.5",
        "exclude=fc.weight, conv1.*",
        "nesterov=true",
        "label-smoothing=0.1",
        "seed=7",
    ]
    assert parse_settings(texts) == {
        "milestones": (3.0, 4.5),
        "exclude": ("fc.weight", "conv1.*"),
        "nesterov": True,
        "label_smoothing": 0.1,
        "seed": 7,
    }
    for text, message in [
        ("speed=3", "--set speed=3: give FIELD=VALUE with a field of preset, model"),
        ("seed", "--set seed: give FIELD=VALUE"),
        ("seed=x", "--set seed=x: not a value of seed"),
        ("nesterov=1", "--set nesterov=1: not a value of nesterov .true or false."),
    ]:
        with pytest.raises(RecipeError, match=message):
            parse_settings([text])


def test_a_foreign_model_keeps_its_own_weights() -> None:
    assert override(Recipe(), model="a.b:make").initialisation == "own"
    assert override(Recipe(), model="a.b:make", initialisation="kaiming").initialisation == "kaiming"
    assert override(Recipe(), model="vgg11").initialisation == "published"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs 0: must be above 0"),
        ({"levels": -1}, "--levels -1: must not be negative"),
        ({"levels": 40}, "--levels 40: at most 24"),
        ({"schedule": "triangle"}, "--schedule triangle: choose one of milestones, one-cycle"),
        ({"prune_share": 1.0}, "--prune-share 1.0: must lie between 0 and 1"),
        ({"learning_rate": -0.1}, "--learning-rate -0.1: must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan: must be finite"),
        ({"weight_decay": float("nan")}, "--weight-decay nan: must be finite"),
        ({"mean": (0.5, float("inf"))}, r"--mean \(0.5, inf\): must be finite"),
        ({"std": (0.2, 0.0)}, r"--set std=\(0.2, 0.0\): must be above 0"),
        ({"min_accuracy": 84.0}, "--min-accuracy 84.0: must lie between 0 and 1"),
        ({"least_density": 1.0}, "--set least_density=1.0: must lie between 0 and 1"),
        ({"train_images": 0}, "--train-images 0: must be at least 1"),
        ({"image_size": -2}, "--image-size -2: must be at least 1"),
        ({"refill_from": 0}, "--refill-from 0: must be at least 1"),
        ({"crop_padding": -1}, "--crop-padding -1: must be at least 0"),
        ({"label_smoothing": 3.0}, "--set label_smoothing=3.0: must lie between 0 and 1"),
        ({"block": 3}, "--block 3: choose one of 1, 2, 4"),
        ({"crop_scale": (0.5,)}, "--set crop_scale: needs two numbers"),
    ],
)
def test_senseless_options_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        override(Recipe(), **change)


def test_unknown_presets_and_foreign_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="vgg99: no such preset; choose one of vgg16-cifar10"):
        preset("vgg99")
    path = tmp_path / "other.json"
    for text in ('{"speed": 3}', "[1, 2]", "{"):
        path.write_text(text)
        with pytest.raises(RecipeError, match=r"other\.json: (not a recipe of this version|no recipe: it names)"):
            preset(str(path))
