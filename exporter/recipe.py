"""Recipes: every number that a training run depends on, as one frozen value; the presets; and what a user
may override.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import read_bytes

CHOICES: dict[str, tuple[str | int, ...]] = {
    "initialisation": ("published", "kaiming", "own"),
    "augmentation": ("none", "shift", "flip-crop", "resized-crop"),
    "rank": ("magnitude", "cost"),
    "block": (1, 2, 4),
    "rewind": ("weights", "learning-rate"),
    "schedule": ("milestones", "one-cycle"),
    "precision": ("float32", "bfloat16", "float16"),
    "optimizer": ("sgd", "adam", "adamw"),
}


_FRESH_OVER_TRAINED = 10  # learning rates
# Later than the first version: left out of a hash where they change nothing, so that older runs are resumed.
_LATER = ("init_from", "optimizer", "loss", "block")


class RecipeError(OnnxShiftError):
    """A preset or an option of a recipe that does not exist or makes no sense."""


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, how sparse and how long. Times are epochs, or steps (batches) where the name
    says so.
    """

    preset: str = "custom"
    # model and data
    model: str = "vgg16"
    width: float = 1.0
    initialisation: str = "published"  # kaiming_normal; gamma ~ U(0, 1), or 1 with "kaiming"; "own": the model's
    init_from: str | None = None  # a checkpoint or ONNX file: level 0 is its weights, and is not trained
    data: str = "uoft-cs/cifar10"
    image_column: str | None = None  # None: found by type
    label_column: str | None = None
    image_size: int | None = None  # resize the shorter side and crop the centre; None: take images as they are
    train_images: int | None = None  # number of training images; None: all
    mean: tuple[float, ...] | None = None  # per channel, of pixels in 0..1; None: measured on the training images
    std: tuple[float, ...] | None = None
    augmentation: str = "flip-crop"
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)  # of the image's area, for "resized-crop"
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    # sparsity
    method: str = "imp"
    levels: int = 8  # ratios 2, 4 … 2^levels; 0: the dense model alone
    first_level: int = 1  # sparse levels before this one are left out; not with iterative methods
    prune_share: float = 0.5  # of the remaining weights, per round of pruning
    rank: str = "magnitude"
    cost_power: float = 0.25  # with rank "cost": score / positions^cost_power; 0.5 starves the first layers
    block: int = 1  # 2, 4: weights of so many consecutive output channels at one place stay or go together
    least_density: float = 0.0  # of a layer, over that of all layers; 0: the last ones may starve
    refill_widen: float = 1.0  # with method "refill": multiplier of channels kept
    refill_from: int = 1  # with method "refill": levels before this one are plain magnitude pruning
    refill_multiple: int = 1  # with method "refill": channels stay in multiples of this, to the nearest
    exclude: tuple[str, ...] = ()  # weights never pruned, by name or pattern
    rewind: str = "weights"  # what is rewound to rewind_steps; with "learning-rate" trained weights stay
    rewind_steps: int = 0
    # optimisation
    epochs: int = 160
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    loss: str | None = None  # package.module:function of scores and class numbers; None: cross-entropy
    momentum: float = 0.9  # with Adam and AdamW the first beta
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    schedule: str = "milestones"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 0.1  # of the learning rate, at every milestone
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False
    seed: int = 0
    evaluate_every: int = 5  # epochs between measurements on the test images; the last epoch is always measured
    min_accuracy: float | None = None

    def to_json(self) -> str:
        """The whole recipe as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @property
    def hash(self) -> str:
        """Sixteen hex digits that change with any field but `levels`: a run may be carried on to more
        levels.
        """
        fields = {
            key: _as_float(value) if "float" in str(self.__dataclass_fields__[key].type) else value
            for key, value in dataclasses.asdict(self).items()
            if key != "levels" and not (key in _LATER and value == self.__dataclass_fields__[key].default)
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _as_float(value: Any) -> Any:
    """80 and 80.0 are one recipe."""
    if isinstance(value, tuple):
        return tuple(map(float, value))
    return None if value is None else float(value)


_CIFAR10 = Recipe(
    data="uoft-cs/cifar10",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    prune_share=0.2,
    rewind_steps=2000,
    epochs=160,
    batch_size=128,
    learning_rate=0.1,
    milestones=(80, 120),
)

_IMAGENET = Recipe(
    model="resnet50",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    augmentation="resized-crop",
    prune_share=0.2,
    warmup_epochs=5,
)

_replace = dataclasses.replace

PRESETS: dict[str, Recipe] = {
    # As published with the paper (its table of settings) and as coded in OpenLTH.
    "vgg16-cifar10": _replace(_CIFAR10, model="vgg16", exclude=("fc.weight",)),
    "resnet20-cifar10": _replace(_CIFAR10, model="resnet20-cifar"),
    "resnet50-tinyimagenet": _replace(
        _IMAGENET,
        data="zh-plus/tiny-imagenet",
        image_size=64,  # all are; but some are grey and must become RGB
        crop_scale=(0.1, 1.0),
        crop_ratio=(0.8, 1.25),
        rewind_steps=2000,
        epochs=200,
        batch_size=256,
        learning_rate=0.2,
        milestones=(100, 150),
    ),
    "resnet50-imagenet": _replace(
        _IMAGENET,
        data="ILSVRC/imagenet-1k",
        image_size=224,
        rewind_steps=6255,  # five epochs
        epochs=90,
        batch_size=1024,
        learning_rate=0.4,
        milestones=(30, 60, 80),
    ),
    # Quick ones for CPUs.
    "digits": Recipe(
        model="vgg-digits",
        data="digits",
        train_images=720,  # with all of them even ratio 256 costs no accuracy, and shows nothing
        initialisation="kaiming",
        augmentation="shift",
        crop_padding=1,
        exclude=("fc.weight",),
        rewind_steps=23,  # one epoch
        epochs=8,
        batch_size=32,
        learning_rate=0.1,
        weight_decay=0.04,  # strong: unneeded channels fade before they are pruned, and so empty whole
        schedule="one-cycle",
        channels_last=True,
        evaluate_every=0,
    ),
    "vgg16-quarter-cifar10": _replace(
        _CIFAR10,
        model="vgg16",
        width=0.25,
        initialisation="kaiming",
        exclude=("fc.weight",),
        prune_share=0.5,
        least_density=0.2,  # without it the last layers starve from ratio 64 on
        rewind="learning-rate",  # so few epochs do not train weights anew
        rewind_steps=391,  # one epoch
        epochs=8,
        learning_rate=0.3,
        nesterov=True,
        crop_padding=2,  # the sparsest levels learn too little of images that are moved further
        schedule="one-cycle",
        milestones=(),
        channels_last=True,
        evaluate_every=4,
    ),
}
PRESETS = {name: _replace(recipe, preset=name) for name, recipe in PRESETS.items()}


def preset(name: str) -> Recipe:
    """The preset `name`, or the recipe stored in a JSON file of that path. Raises RecipeError when there is
    neither.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name.endswith(".json"):
        return load_recipe(Path(name))
    raise RecipeError(f"{name}: no such preset; choose one of {', '.join(PRESETS)}, or name a recipe.json of a run")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe that `Recipe.to_json` wrote. Raises RecipeError naming the file."""
    try:
        values = json.loads(read_bytes(path))
        if not {"model", "data"} <= values.keys():
            raise RecipeError(f"{path}: no recipe: it names no model and data")
        return check(from_fields(values))
    except (ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"{path}: not a recipe of this version ({error})") from error


def from_fields(values: Mapping[str, Any]) -> Recipe:
    """The recipe whose fields were stored as JSON, which knows no tuples."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Recipe(**fields)


def override(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with `changes` (None leaves a field as it is), checked.

    With another number of epochs, milestones, warm-up and rewind step move in proportion unless given themselves.
    With weights to start from the learning rate is a tenth of the recipe's, which is for fresh ones, unless given.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    if ":" in changes.get("model", ""):
        changes.setdefault("initialisation", "own")  # a third-party model may come with trained weights
    if "init_from" in changes:  # trained weights stay, and there is no early step of theirs to go back to
        changes.setdefault("rewind", "learning-rate")
        changes.setdefault("rewind_steps", 0)
        if recipe.init_from is None:  # otherwise it is lowered already
            changes.setdefault("learning_rate", recipe.learning_rate / _FRESH_OVER_TRAINED)
    if "epochs" in changes and changes["epochs"] != recipe.epochs:
        factor = changes["epochs"] / recipe.epochs
        changes.setdefault("milestones", tuple(milestone * factor for milestone in recipe.milestones))
        changes.setdefault("warmup_epochs", recipe.warmup_epochs * factor)
        changes.setdefault("rewind_steps", round(recipe.rewind_steps * factor))
    return check(dataclasses.replace(recipe, **changes))


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Read "FIELD=VALUE" for any field of a recipe; numbers of a list are separated by commas.

    Raises RecipeError naming the setting.
    """
    defaults = dataclasses.asdict(Recipe())
    changes: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        field = name.strip().replace("-", "_")
        if not separator or field not in defaults:
            raise RecipeError(f"--set {text}: give FIELD=VALUE with a field of {', '.join(defaults)}")
        try:
            changes[field] = _parse(str(Recipe.__dataclass_fields__[field].type), value.strip())
        except ValueError as error:
            raise RecipeError(f"--set {text}: not a value of {field} ({error})") from error
    return changes


def _parse(kind: str, text: str) -> Any:
    """Read `text` as the annotated type of a field."""
    if "tuple[str" in kind:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if "tuple" in kind:
        return tuple(float(part) for part in text.split(",") if part.strip())
    if "bool" in kind:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if "int" in kind:
        return int(text)
    return float(text) if "float" in kind else text


def check(recipe: Recipe) -> Recipe:
    """Return `recipe` when its fields make sense; raise RecipeError naming the option otherwise."""
    for field, choices in CHOICES.items():
        value = getattr(recipe, field)
        if value not in choices:
            raise RecipeError(f"--{_option(field)} {value}: choose one of {', '.join(map(str, choices))}")
    for field, value in vars(recipe).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise RecipeError(f"--{_option(field)} {value}: must be finite")
    if recipe.std is not None and not all(number > 0 for number in recipe.std):
        raise RecipeError(f"--set std={recipe.std}: must be above 0")
    for field in ("epochs", "batch_size", "learning_rate", "width", "refill_widen", "refill_multiple"):
        if not getattr(recipe, field) > 0:
            raise RecipeError(f"--{_option(field)} {getattr(recipe, field)}: must be above 0")
    for field in (
        "levels",
        "rewind_steps",
        "momentum",
        "weight_decay",
        "warmup_epochs",
        "evaluate_every",
        "seed",
    ):
        if getattr(recipe, field) < 0:
            raise RecipeError(f"--{_option(field)} {getattr(recipe, field)}: must not be negative")
    for field, least in (("image_size", 1), ("train_images", 1), ("refill_from", 1), ("crop_padding", 0)):
        value = getattr(recipe, field)
        if value is not None and value < least:
            raise RecipeError(f"--{_option(field)} {value}: must be at least {least}")
    if recipe.loss is not None and recipe.label_smoothing:
        raise RecipeError(f"--loss {recipe.loss}: smooths no labels; leave out --set label_smoothing")
    if recipe.init_from is not None and recipe.rewind == "weights":
        raise RecipeError(f"--init-from {recipe.init_from}: its early weights are not known; leave out --set rewind")
    if not 0 <= recipe.label_smoothing <= 1:
        raise RecipeError(f"--set label_smoothing={recipe.label_smoothing}: must lie between 0 and 1")
    for field in ("crop_scale", "crop_ratio"):
        if len(getattr(recipe, field)) != 2:
            raise RecipeError(f"--set {field}: needs two numbers, the smallest and the largest")
    if recipe.levels > 24:
        raise RecipeError(f"--levels {recipe.levels}: at most 24, a ratio of 2^24")
    if not 1 <= recipe.first_level <= max(1, recipe.levels):
        raise RecipeError(f"--set first_level={recipe.first_level}: must lie within 1 and --levels")
    if not 0 < recipe.prune_share < 1:
        raise RecipeError(f"--prune-share {recipe.prune_share}: must lie between 0 and 1")
    if not 0 <= recipe.least_density < 1:
        raise RecipeError(f"--set least_density={recipe.least_density}: must lie between 0 and 1")
    if recipe.min_accuracy is not None and not 0 <= recipe.min_accuracy <= 1:
        raise RecipeError(f"--min-accuracy {recipe.min_accuracy}: must lie between 0 and 1")
    return recipe


def rounds_of_levels(recipe: Recipe, *, iterative: bool) -> tuple[int, ...]:
    """The round of pruning that ends each level 0 … levels; ratio 2^level is met as nearly as the share
    allows.

    At 20 % per round these are rounds 3, 6, 9, 12, 16, 19, 22, 25, as in the paper. One-shot methods need no
    rounds in between.
    """
    if not iterative:
        return tuple(range(recipe.levels + 1))
    if recipe.first_level > 1:
        raise RecipeError(
            f"--set first_level={recipe.first_level}: method {recipe.method} prunes level by level and can skip none"
        )
    rounds_per_level = math.log(2) / -math.log1p(-recipe.prune_share)
    rounds = tuple(round(level * rounds_per_level) for level in range(recipe.levels + 1))
    if len(set(rounds)) != len(rounds):
        raise RecipeError(f"--prune-share {recipe.prune_share}: more than half a round's weights leave no level of 2x")
    return rounds


def _option(field: str) -> str:
    return field.replace("_", "-")
