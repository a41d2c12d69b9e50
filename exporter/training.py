"""One model, its optimiser and the images on one device: training an epoch, measuring the accuracy."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from onnx_shift.errors import OnnxShiftError, first_line
from onnx_shift.exporter.augmentation import Draws, draw, resized_crop, shift_and_flip
from onnx_shift.exporter.distributed import World, synchronise_batchnorm
from onnx_shift.exporter.masks import Mask, apply_mask, count_all, count_kept
from onnx_shift.exporter.recipe import Recipe
from onnx_shift.exporter.schedule import learning_rate
from onnx_shift.exporter.structure import empty_shifts
from onnx_shift.files import import_named
from onnx_shift.portfolio.data import Normalisation, Split

LOSS_CHECK_STEPS = 50  # reading the loss waits for the device: not on every batch
_AVX2_VECTOR = 8  # float32 values


class TrainingError(OnnxShiftError):
    """Training that cannot go on: a loss that is not a number, a device that is not there."""


def choose_device(name: str) -> torch.device:
    """The device `name`, or the fastest there is for "auto". Raises TrainingError when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(f"--device {name}: not there ({first_line(error)})") from error
    return device


def emulates(precision: str, device: torch.device) -> bool:
    """Whether `device` lacks the arithmetic of `precision`, so that training takes ten times as long or more."""
    return precision != "float32" and device.type == "cpu" and _processor() == "AVX2"


def _processor() -> str:
    return torch.backends.cpu.get_cpu_capability()


@contextmanager
def sound_convolutions(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Compute without oneDNN, up to 2.5 times slower, where it would write gradients out of bounds.

    It does on AVX2 processors, for strided 1x1 convolutions of fewer channels than a vector holds: wrong numbers or
    an abort, as of oneDNN 3.14 (github.com/uxlfoundation/oneDNN/issues/6035).
    """
    faulty = device.type == "cpu" and _processor() == "AVX2"
    faulty = faulty and any(
        conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.in_channels < _AVX2_VECTOR * conv.groups
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d)
    )
    before, *_ = torch.backends.mkldnn.set_flags(_enabled=False if faulty else None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)  # type: ignore[no-untyped-call]


def derive_seed(*parts: int | str) -> int:
    """A seed that depends on every part and nothing else, so that a resumed epoch draws what it would have
    drawn.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _seed_all(seed: int) -> None:
    """Seed every generator that a forward of anybody's may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@dataclass(frozen=True)
class Place:
    """Where training stands within a round: steps count the batches of the round, epochs follow from them."""

    round: int
    step: int


def _leaves_unused(model: nn.Module, images: Tensor) -> bool:
    """Whether some trainable parameter has no part in the model's output for `images`."""
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with sound_convolutions(model, images.device):
        gradients = torch.autograd.grad(model(images).sum(), parameters, allow_unused=True)
    model.train()
    return any(gradient is None for gradient in gradients)


class Images:
    """A split ready to be drawn from: uint8 on the device, or decoded batch by batch where memory is short."""

    def __init__(self, split: Split, normalisation: Normalisation, recipe: Recipe, device: torch.device) -> None:
        in_memory = isinstance(split.images, np.ndarray)
        self.pixels = torch.from_numpy(np.ascontiguousarray(split.images)).to(device) if in_memory else split.images
        self.labels = torch.from_numpy(split.labels).to(device)
        self.recipe = recipe
        self.device = device
        std = torch.tensor(normalisation.std, device=device).view(1, -1, 1, 1)
        self._scale = 1 / 255 / std
        self._shift = -torch.tensor(normalisation.mean, device=device).view(1, -1, 1, 1) / std
        self._format = torch.channels_last if recipe.channels_last else torch.contiguous_format

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Normalised, augmented images (n, C, H, W) of float32 and their labels (n,)."""
        return self._finish(self._pixels(index), index, draws)

    def batches(self, requests: Iterable[tuple[Tensor, Draws]]) -> Iterator[tuple[Tensor, Tensor]]:
        """`take` of every request; encoded images are decoded one batch ahead, while the device is busy."""
        if isinstance(self.pixels, Tensor):
            for index, draws in requests:
                yield self.take(index, draws)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as ahead:
            pending: tuple[Future[Tensor], Tensor, Draws] | None = None
            for index, draws in requests:
                following = (ahead.submit(self._pixels, index), index, draws)
                if pending is not None:
                    yield self._finish(pending[0].result(), *pending[1:])
                pending = following
            if pending is not None:
                yield self._finish(pending[0].result(), *pending[1:])

    def _pixels(self, index: Tensor) -> Tensor:
        if isinstance(self.pixels, Tensor):
            return self.pixels[index]
        return torch.from_numpy(self.pixels[index.cpu().numpy()])

    def _finish(self, pixels: Tensor, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        pixels = pixels.to(self.device)
        pixels = shift_and_flip(pixels, draws, self.recipe.crop_padding)
        images = torch.addcmul(self._shift, pixels.to(torch.float32), self._scale)
        images = resized_crop(images, draws)
        return images.contiguous(memory_format=self._format), self.labels[index]

    def in_order(self, batch_size: int, world: World) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of all images, in order, not augmented."""
        share = world.share(0, len(self))
        index = torch.arange(share.start, share.stop, device=self.device)
        return self.batches((part, Draws()) for part in torch.split(index, batch_size))


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    parameters, momentum = model.parameters(), recipe.momentum
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=recipe.nesterov, fused=True
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, betas=(momentum, 0.999), weight_decay=decay, fused=True)


class Trainer:
    """The live state of a run: weights, optimiser, mask and the training images."""

    def __init__(
        self,
        model: nn.Module,
        train: Images,
        test: Images,
        recipe: Recipe,
        device: torch.device,
        world: World,
        empties_channels: bool = False,
    ) -> None:
        self.recipe, self.device, self.world = recipe, device, world
        self.empties_channels = empties_channels  # then what is left of an empty channel is removed too
        self.train, self.test = train, test
        self.model = model.to(device)
        if recipe.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.runner: Any = self.model
        if world.size > 1:
            synchronise_batchnorm(self.model, device)
            devices = [device] if device.type == "cuda" else None
            images, _ = train.take(torch.arange(2, device=device), Draws())
            self.runner = nn.parallel.DistributedDataParallel(
                self.model, device_ids=devices, find_unused_parameters=_leaves_unused(self.model, images)
            )
        if recipe.compile:
            self.runner = torch.compile(self.runner)
        # A last batch of a single image is left out: it has no variance for BatchNorm to divide by.
        self.steps_per_epoch = max(1, -(-(len(train) - 1) // recipe.batch_size))
        self.mask: Mask = {}
        self._masked: list[tuple[nn.Parameter, Tensor]] = []
        self._loss = None if recipe.loss is None else import_named(recipe.loss, "--loss")
        self.start({})

    def start(self, mask: Mask, state: dict[str, Tensor] | None = None) -> None:
        """Begin a round: take over the weights of `state` that `mask` keeps, with a fresh optimiser."""
        if state is not None:
            self.model.load_state_dict(state)
        self.mask = {name: kept.to(self.device) for name, kept in mask.items()}
        sparse = count_kept(self.mask) < count_all(self.mask)
        removed = self.mask if sparse else {}
        if sparse and self.empties_channels:
            shifts = empty_shifts(self.model, self.mask)
            removed = removed | {name: kept.to(self.device) for name, kept in shifts.items()}
        apply_mask(self.model, removed)
        weights = [(self.model.get_parameter(name), kept) for name, kept in removed.items()]
        self._masked = [(weight, kept.to(weight)) for weight, kept in weights]
        self.optimizer = _optimizer(self.recipe, self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "float16")

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside its place."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def run_epoch(self, place: Place, before_step: Callable[[int], None]) -> float:
        """Train from `place` to the end of its epoch; returns the mean loss of the images seen.

        `before_step` is called with every step. Raises TrainingError when the loss is no number.
        """
        epoch, first_batch = divmod(place.step, self.steps_per_epoch)
        order, draws = self._draw_epoch(place.round, epoch)
        _seed_all(derive_seed(self.recipe.seed, "noise", place.round, epoch, self.world.rank))
        self.runner.train()
        loss_sum = torch.zeros((), device=self.device)
        size = self.recipe.batch_size
        end = min(len(order), self.steps_per_epoch * size)
        starts = range(first_batch * size, end, size)
        shares = [self.world.share(start, min(start + size, end)) for start in starts]
        batches = self.train.batches((order[share], draws.take(share)) for share in shares)
        for step, start in enumerate(starts, epoch * self.steps_per_epoch + first_batch):
            before_step(step)
            images, labels = next(batches)
            loss_sum += self._update(images, labels, step, min(size, end - start))
            if step % LOSS_CHECK_STEPS == 0:
                self._check_loss(loss_sum, place.round, step)
        self._check_loss(loss_sum, place.round, (epoch + 1) * self.steps_per_epoch)
        return float(self.world.total(loss_sum)) / (end - starts.start)

    def _draw_epoch(self, round_: int, epoch: int) -> tuple[Tensor, Draws]:
        generator = torch.Generator().manual_seed(derive_seed(self.recipe.seed, "epoch", round_, epoch))
        order = torch.randperm(len(self.train), generator=generator).to(self.device)
        return order, draw(self.recipe, len(self.train), generator, self.device)

    def _update(self, images: Tensor, labels: Tensor, step: int, global_count: int) -> Tensor:
        """One step of SGD on this process's part of a batch of `global_count`; returns the part's summed
        loss.
        """
        rate = learning_rate(self.recipe, step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._autocast():
            scores = self.runner(images)
        loss = self._summed_loss(scores.float(), labels)
        self.optimizer.zero_grad()
        # The engine averages gradients over processes; the mean over the whole batch is asked for.
        self.scaler.scale(loss * (self.world.size / global_count)).backward()  # type: ignore[no-untyped-call]
        for weight, factor in self._masked:
            if weight.grad is not None:
                weight.grad.mul_(factor)  # a removed weight without a gradient stays +0.0
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _summed_loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss summed over the images; one of the user's own may be their mean, or one value for each."""
        if self._loss is None:
            return F.cross_entropy(scores, labels, reduction="sum", label_smoothing=self.recipe.label_smoothing)
        found = self._loss(scores, labels)
        if not isinstance(found, Tensor) or found.shape not in ((), labels.shape):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise TrainingError(f"--loss {self.recipe.loss}: gives {shape}, not the mean loss, or one for each image")
        return found.sum() if found.dim() else found * len(labels)

    def _autocast(self) -> torch.autocast:
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        enabled = self.recipe.precision != "float32"
        chosen = dtype[self.recipe.precision] if enabled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=chosen, enabled=enabled)

    def _check_loss(self, loss_sum: Tensor, round_: int, step: int) -> None:
        if not torch.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is not a number any more in round {round_} before step {step}; "
                f"try a --learning-rate below {self.recipe.learning_rate:g} in a new run folder"
            )

    def evaluate(self) -> float:
        """Share of the test images classified rightly, 0..1."""
        self.model.eval()
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        with torch.no_grad(), self._autocast():
            for images, labels in self.test.in_order(self.recipe.batch_size, self.world):
                right += (self.model(images).argmax(1) == labels).sum()
        self.model.train()
        return int(self.world.total(right)) / len(self.test)
