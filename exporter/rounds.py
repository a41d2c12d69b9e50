"""The rounds of a run: train the dense network, then prune, rewind and train again; every level is exported as
ONNX.

A run is a sequence of epochs, each of which depends only on the recipe and on the checkpoint before it.
That is what makes a killed run end with the same weights as an undisturbed one.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onnx_shift.exporter.augmentation import Draws
from onnx_shift.exporter.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from onnx_shift.exporter.distributed import World, join
from onnx_shift.exporter.export import export_checkpoint, to_onnx
from onnx_shift.exporter.masks import (
    Mask,
    count_all,
    count_kept,
    full_mask,
    keep_after_round,
    prunable_weights,
)
from onnx_shift.exporter.methods import find_method, next_mask
from onnx_shift.exporter.metrics import Clock, Metrics
from onnx_shift.exporter.recipe import PRESETS, Recipe, RecipeError, check, rounds_of_levels
from onnx_shift.exporter.run_folder import RunFolder
from onnx_shift.exporter.schedule import learning_rate
from onnx_shift.exporter.scoring import Method, Scoring
from onnx_shift.exporter.starting import load_weights
from onnx_shift.exporter.training import (
    Images,
    Place,
    Trainer,
    choose_device,
    derive_seed,
    sound_convolutions,
)
from onnx_shift.models.registry import build, check_output, initialise
from onnx_shift.portfolio.data import Dataset, Normalisation, open_dataset

_KEYS = ("round", "step", "mask", "history", "model")  # of every checkpoint but the one to rewind to


@dataclass(frozen=True)
class Level:
    """A finished level of a run."""

    level: int
    round: int
    ratio: float  # prunable weights over those left
    kept: int
    total: int
    accuracy: float  # on the test images, 0..1
    onnx: Path


@dataclass(frozen=True)
class Run:
    """A finished run. `stopped` says why it ended before its last level, or is empty."""

    folder: Path
    recipe: Recipe
    levels: tuple[Level, ...]
    stopped: str = ""


@dataclass(frozen=True)
class Progress:
    """Where a run stands; handed to the `progress` callback after every batch."""

    round: int
    rounds: int
    level: int | None  # the level that this round ends, if it ends one
    ratio: float
    epoch: int
    epochs: int
    done: float  # share of the whole run's batches, 0..1
    seconds_left: float | None
    loss: float | None  # of the epoch before
    accuracy: float | None  # the last one measured


def train(
    recipe: Recipe,
    run_folder: str | Path,
    *,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    level_done: Callable[[Level], None] | None = None,
    tensorboard: bool = False,
    dataset: Dataset | None = None,
) -> Run:
    """Train `recipe` into `run_folder`, going on from what is there; returns the finished levels.

    `dataset` replaces opening the recipe's, and is taken whole. Raises OnnxShiftError kinds; the folder stays resumable
    whatever happens.
    """
    check(recipe)
    find_method(recipe.method)  # before a folder is told to be of another recipe
    folder = RunFolder(Path(run_folder))
    chosen_device = choose_device(device)
    with join(chosen_device) as world:
        if chosen_device.type == "cuda" and world.size > 1:
            chosen_device = torch.device("cuda", world.local_rank)
        folder.refuse_other(recipe)
        data = dataset or open_dataset(
            recipe.data,
            image_column=recipe.image_column,
            label_column=recipe.label_column,
            image_size=recipe.image_size,
            train_images=recipe.train_images,
        )
        session = _Session(recipe, folder, data, chosen_device, world, progress, level_done)
        sound = sound_convolutions(session.trainer.model, chosen_device)
        with sound, folder.claim(recipe) if world.leads else nullcontext():
            world.wait()
            with Metrics(folder.path, tensorboard=tensorboard and world.leads) as metrics:
                return session.run(metrics)


class _Session:
    """One process's run."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        data: Dataset,
        device: torch.device,
        world: World,
        progress: Callable[[Progress], None] | None,
        level_done: Callable[[Level], None] | None,
    ) -> None:
        self.recipe, self.folder, self.data, self.world = recipe, folder, data, world
        self.progress, self.level_done = progress, level_done
        self.method: Method = find_method(recipe.method)
        self.level_rounds = rounds_of_levels(recipe, iterative=self.method.iterative)
        last = self.level_rounds[-1]
        self.rounds = tuple(round_ for round_ in range(last + 1) if not 0 < round_ < recipe.first_level)
        channels = data.image_shape[0]
        stated = Normalisation(recipe.mean or (), recipe.std or ())
        fits = len(stated.mean) == len(stated.std) == channels
        usual = PRESETS.get(recipe.preset, Recipe())
        if not fits and (recipe.mean, recipe.std) != (usual.mean, usual.std):
            raise RecipeError(
                f"--set mean, std: {len(stated.mean)} and {len(stated.std)} numbers, "
                f"but the images have {channels} channels"
            )
        self.normalisation = stated if fits else data.measure()
        torch.manual_seed(derive_seed(recipe.seed, "initial"))
        model = self._build()
        check_output(model, data.image_shape, len(data.class_names))
        self._initialise(model)
        to_onnx(model, shape=data.image_shape)  # what cannot be exported is refused before hours of training
        self.prunable = prunable_weights(model, recipe.exclude)
        weights = sum(model.get_parameter(name).numel() for name in self.prunable)
        if weights < 2**recipe.levels:
            raise RecipeError(f"--levels {recipe.levels}: ratio {2**recipe.levels} leaves none of {weights} weights")
        train_images = Images(data.train, self.normalisation, recipe, device)
        test_images = Images(data.test, self.normalisation, recipe, device)
        empties_channels = self.method.reshape is not None
        self.trainer = Trainer(model, train_images, test_images, recipe, device, world, empties_channels)
        # Methods that prune at initialisation train every level from there.
        self.rewind_step = 0 if self.method.source == "initial" else recipe.rewind_steps
        self.total_steps = recipe.epochs * self.trainer.steps_per_epoch
        self.rewind_step = min(self.rewind_step, self.total_steps - 1)
        self.history: list[dict[str, Any]] = []
        self.ratio = 1.0
        self.clock = Clock(self._steps_until(last, self.total_steps))

    def _build(self) -> nn.Module:
        channels, classes = self.data.image_shape[0], len(self.data.class_names)
        return build(self.recipe.model, num_classes=classes, in_channels=channels, width=self.recipe.width)

    def _initialise(self, model: nn.Module) -> None:
        if self.recipe.init_from is not None:
            load_weights(model, Path(self.recipe.init_from))
        elif self.recipe.initialisation != "own":
            initialise(model, uniform_batchnorm=self.recipe.initialisation == "published")

    # --- the run ---

    def run(self, metrics: Metrics) -> Run:
        """Train what is left to train; returns the finished levels."""
        self.metrics = metrics
        levels: list[Level] = []
        stopped = ""
        redo = False  # a round whose checkpoint is missing, and all that follow from it
        for round_ in self.rounds:
            redo = redo or not self.folder.round(round_).exists()
            if redo:
                self._train_round(round_)
            if round_ in self.level_rounds:
                levels.append(self._level(round_))
                stopped = self._hopeless(levels)
                if stopped:
                    break
        return Run(self.folder.path, self.recipe, tuple(levels), stopped)

    def _train_round(self, round_: int) -> None:
        if round_ == 0 and self.recipe.init_from is not None:
            self._take_over()
            return
        start_step = self._begin(round_)
        steps_per_epoch = self.trainer.steps_per_epoch
        for epoch in range(start_step // steps_per_epoch, self.recipe.epochs):
            step = max(start_step, epoch * steps_per_epoch)
            started = time.monotonic()
            loss = self.trainer.run_epoch(Place(round_, step), lambda step: self._before_step(round_, step))
            seconds = time.monotonic() - started
            last = epoch + 1 == self.recipe.epochs
            every = self.recipe.evaluate_every
            measured = last or (every and (epoch + 1) % every == 0)
            accuracy = self.trainer.evaluate() if measured else None
            next_step = (epoch + 1) * steps_per_epoch
            self._record(round_, epoch, next_step - step, loss, accuracy, seconds)
            if last:
                self._finish(round_, accuracy or 0.0)
            elif self.world.leads:
                save_checkpoint(self.folder.last, self._checkpoint(round_, next_step) | self.trainer.state())
                self.metrics.epochs(self.history)
            self.world.wait()

    def _take_over(self) -> None:
        """Make the given weights the dense level, untrained."""
        self._begin(0)
        if self.world.leads:
            save_checkpoint(self.folder.rewind, {"step": 0, "model": self.trainer.model.state_dict()})
        self._finish(0, self.trainer.evaluate())
        self.world.wait()

    def _begin(self, round_: int) -> int:
        """Set the trainer to where the round was left, or to its start; returns the step to go on from."""
        step = self._restore(round_)
        self.ratio = count_all(self.trainer.mask) / max(1, count_kept(self.trainer.mask))
        return step

    def _restore(self, round_: int) -> int:
        if self.folder.last.exists():
            left = self._load(self.folder.last)
            if left["round"] == round_:
                self.trainer.start(left["mask"])
                self.trainer.load(left)
                self.history = left["history"]
                return int(left["step"])
        if round_ == 0:
            self.trainer.start(full_mask(self.trainer.model, self.prunable))
            return 0
        before = self._load(self.folder.round(self._round_before(round_)))
        self.history = before["history"]
        # One scores for all: sums over processes round otherwise, and second derivatives do not pass them.
        kept = {name: part.to(self.trainer.device) for name, part in before["mask"].items()}
        mask = self._prune(round_, kept) if self.world.leads else kept
        self.world.agree(mask)
        keeps_weights = self.recipe.rewind == "learning-rate"
        start = self._source(round_) if keeps_weights else self.folder.rewind
        self.trainer.start(mask, self._load(start)["model"])
        return self.rewind_step

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            return load_checkpoint(path, _KEYS if path != self.folder.rewind else ("model",))
        except CheckpointError as error:
            if path == self.folder.rewind:
                raise
            raise CheckpointError(f"{error}; delete it, and the same command resumes from the one before") from error

    def _before_step(self, round_: int, step: int) -> None:
        if round_ == 0 and step == self.rewind_step and self.world.leads:
            save_checkpoint(self.folder.rewind, {"step": step, "model": self.trainer.model.state_dict()})
        if self.progress is not None and self.world.leads:
            self.progress(self._report(round_, step))

    def _finish(self, round_: int, accuracy: float) -> None:
        if not self.world.leads:
            return
        number = self._level_of(round_)
        if number is not None:  # of a round that is trained again: it must not stay beside other weights
            self.folder.level(number).unlink(missing_ok=True)
        content = self._checkpoint(round_, self.total_steps) | {"model": self.trainer.state()["model"]}
        save_checkpoint(self.folder.round(round_), content | {"accuracy": accuracy})
        self.folder.last.unlink(missing_ok=True)
        if self.history:
            self.metrics.epochs(self.history)

    def _level(self, round_: int) -> Level:
        """Export a finished round that ends a level, unless that was done before."""
        number = self.level_rounds.index(round_)
        path = self.folder.level(number)
        checkpoint = self._load(self.folder.round(round_))
        kept, total = count_kept(checkpoint["mask"]), count_all(checkpoint["mask"])
        level = Level(number, round_, total / max(1, kept), kept, total, checkpoint["accuracy"], path)
        if self.world.leads:
            if not path.exists():
                export_checkpoint(checkpoint, path)
            self.metrics.level(asdict(level) | {"onnx": path.name})
            if self.level_done is not None:
                self.level_done(level)
        self.world.wait()
        return level

    def _hopeless(self, levels: list[Level]) -> str:
        """Why the target accuracy is out of reach: the last level misses it and is no better than the one
        before.
        """
        target = self.recipe.min_accuracy
        if target is None or len(levels) < 2 or levels[-1].accuracy >= target:
            return ""
        if levels[-1].round == self.rounds[-1]:  # nothing is left to stop
            return ""
        if levels[-1].accuracy > levels[-2].accuracy:
            return ""
        last = levels[-1]
        reached = f"level {last.level} reached {last.accuracy:.2%}"
        return f"{reached}, below --min-accuracy {target:.2%}, and accuracy falls"

    # --- pruning ---

    def _source(self, round_: int) -> Path:
        """The checkpoint whose weights the method scores."""
        return {
            "trained": self.folder.round(self._round_before(round_)),
            "dense": self.folder.round(0),
            "initial": self.folder.rewind,
        }[self.method.source]

    def _prune(self, round_: int, mask: Mask) -> Mask:
        # Not a copy of the trained one, which may hold tensors of its last batch.
        model = self._build().to(self.trainer.device)
        model.load_state_dict(self._load(self._source(round_))["model"])
        share = self.recipe.prune_share if self.method.iterative else 0.5
        keep = count_all(mask)
        for _ in range(round_):
            keep = keep_after_round(keep, share)
        seed = derive_seed(self.recipe.seed, "prune", round_)
        torch.manual_seed(seed)
        scoring = Scoring(
            model=model,
            mask=mask,
            recipe=self.recipe,
            round=round_,
            image_shape=self.data.image_shape,
            batches=self._scoring_batches,
            redraw=lambda: initialise(model, uniform_batchnorm=self.recipe.initialisation == "published"),
            generator=torch.Generator().manual_seed(seed),
        )
        return next_mask(self.method, scoring, keep)

    def _scoring_batches(self, count: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Return `count` batches of training images, not augmented, the same at every call."""
        generator = torch.Generator().manual_seed(derive_seed(self.recipe.seed, "scoring"))
        train = self.trainer.train
        order = torch.randperm(len(train), generator=generator)
        for batch in range(count):
            start = batch * self.recipe.batch_size % len(train)
            yield train.take(order[start : start + self.recipe.batch_size].to(self.trainer.device), Draws())

    # --- records ---

    def _checkpoint(self, round_: int, step: int) -> dict[str, Any]:
        channels, height, width = self.data.image_shape
        return {
            "recipe": json.loads(self.recipe.to_json()),
            "recipe_hash": self.recipe.hash,
            "round": round_,
            "level": self._level_of(round_),
            "step": step,
            "mask": self.trainer.mask,
            "history": self.history,
            "shape": [channels, height, width],
            "class_names": list(self.data.class_names),
            "normalisation": asdict(self.normalisation),
        }

    def _record(self, round_: int, epoch: int, steps: int, loss: float, accuracy: float | None, seconds: float) -> None:
        images = min(steps * self.recipe.batch_size, len(self.trainer.train))
        self.history = [
            *self.history,
            {
                "round": round_,
                "level": self._level_of(round_),
                "epoch": epoch + 1,
                "ratio": round(self.ratio, 4),
                "learning_rate": learning_rate(
                    self.recipe, (epoch + 1) * self.trainer.steps_per_epoch - 1, self.trainer.steps_per_epoch
                ),
                "loss": loss,
                "test_accuracy": accuracy,
                "seconds": round(seconds, 3),
                "images_per_second": round(images / seconds, 1),
            },
        ]

    def _level_of(self, round_: int) -> int | None:
        return self.level_rounds.index(round_) if round_ in self.level_rounds else None

    def _round_before(self, round_: int) -> int:
        return self.rounds[self.rounds.index(round_) - 1]

    def _steps_until(self, round_: int, step: int) -> int:
        """Batches that a whole run has trained on when it comes to `step` of `round_`."""
        return self.rounds.index(round_) * (self.total_steps - self.rewind_step) + step

    def _report(self, round_: int, step: int) -> Progress:
        done = self._steps_until(round_, step)
        row = self.history[-1] if self.history else {"loss": None, "test_accuracy": None}
        return Progress(
            round=round_,
            rounds=self.level_rounds[-1],
            level=self._level_of(round_),
            ratio=self.ratio,
            epoch=step // self.trainer.steps_per_epoch + 1,
            epochs=self.recipe.epochs,
            done=done / self.clock.total_steps,
            seconds_left=self.clock.seconds_left(done),
            loss=row["loss"],
            accuracy=row["test_accuracy"],
        )
