"""What the trainer adds to the bare arithmetic: an epoch of ours against forward, backward and update alone.

Both train quarter-width VGG-16 on the same number of batches of 128 images, in one process, epoch by epoch in turn.
The bare epoch finds its batches as finished float tensors in memory. Ours draws and augments them, keeps removed
weights at zero, follows the schedule, reports progress and writes a checkpoint and the CSV at its end.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

TITLE = "Training: what masks, augmentation, logging and checkpoints cost"
MINUTES = 4
BATCHES = 64
EPOCHS = 3


def measure(work: Path) -> dict[str, Any]:
    """Train two rounds, dense and at ratio 2, with a bare epoch after each epoch of ours."""
    from onnx_shift.exporter import Progress, override, preset, train
    from onnx_shift.exporter.data import Dataset, Split

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, BATCHES * 128)
    images = rng.integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    test = Split(images[:128], labels[:128])
    data = Dataset("noise", Split(images, labels), test, tuple("0123456789"))
    recipe = override(
        preset("vgg16-quarter-cifar10"),
        levels=1,
        epochs=EPOCHS,
        rewind_steps=0,
        learning_rate=0.01,
        evaluate_every=EPOCHS + 1,
    )
    bare = _BareEpoch(recipe)
    bare.run()  # warm up
    rows: list[dict[str, Any]] = []
    began: tuple[int, _Moment] | None = None

    def between_epochs(progress: Progress) -> None:
        """At each epoch's first batch: the one before is over, checkpoint and all; then a bare one."""
        nonlocal began
        place = progress.round * EPOCHS + progress.epoch
        if began is not None and place == began[0]:
            return
        if (
            began is not None and progress.epoch > 1
        ):  # a round's last epoch also measures and exports: left out
            ours, start = _Moment.now().since(began[1]), _Moment.now()
            bare.run()
            alone = _Moment.now().since(start)
            rows.append(
                {
                    "round": "dense" if progress.round == 0 else "ratio 2",
                    "epoch, s": round(ours.wall, 2),
                    "bare epoch, s": round(alone.wall, 2),
                    "ratio": round(ours.wall / alone.wall, 3),
                    "ratio of processor time": round(ours.processor / alone.processor, 3),
                }
            )
        began = (place, _Moment.now())

    with TemporaryDirectory(dir=work) as folder:
        train(recipe, Path(folder) / "run", device="cpu", dataset=data, progress=between_epochs)
    ratios = [row["ratio"] for row in rows]
    return {
        "rows": rows,
        "spread": {"epoch_over_bare_epoch": (min(ratios), max(ratios))},
        "figures": {
            "epoch_over_bare_epoch": statistics.median(ratios),
            "processor_time_over_bare": statistics.median(row["ratio of processor time"] for row in rows),
        },
        "notes": [
            f"Epochs of {BATCHES} batches of 128; with all 391 of CIFAR-10 a checkpoint weighs a sixth of this.",
            "Measuring the accuracy, once in five epochs by default, comes on top: a forward pass of the test set.",
        ],
    }


@dataclass(frozen=True)
class _Moment:
    """Seconds on the clock on the wall, and of all processors spent by this process."""

    wall: float
    processor: float

    @staticmethod
    def now() -> "_Moment":
        return _Moment(time.perf_counter(), time.process_time())

    def since(self, start: "_Moment") -> "_Moment":
        return _Moment(self.wall - start.wall, self.processor - start.processor)


class _BareEpoch:
    """Forward, backward and update of batches that lie ready."""

    def __init__(self, recipe: Any) -> None:
        import torch

        from onnx_shift.models.registry import build, initialise

        torch.manual_seed(0)
        self.model = build(recipe.model, num_classes=10, in_channels=3, width=recipe.width)
        initialise(self.model, uniform_batchnorm=False)
        self.model = self.model.to(memory_format=torch.channels_last).train()
        self.batches = [
            (
                torch.randn(recipe.batch_size, 3, 32, 32).contiguous(memory_format=torch.channels_last),
                torch.randint(0, 10, (recipe.batch_size,)),
            )
            for _ in range(BATCHES)
        ]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=recipe.weight_decay, fused=True
        )

    def run(self) -> None:
        from torch.nn.functional import cross_entropy

        for images, labels in self.batches:
            loss = cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
