"""What the trainer adds to the bare arithmetic: an epoch of ours against forward, backward and update alone.

Both train quarter-width VGG-16 on the same number of batches of 128 images, in one process, batch by batch in turn.
The bare one finds them as finished float tensors in memory. Ours draws and augments them, keeps removed
weights at zero, follows the schedule, reports progress and writes a checkpoint and the CSV at its end.
"""

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

TITLE = "Training: what masks, augmentation, logging and checkpoints cost"
MINUTES = 2
BATCHES = 32
EPOCHS = 4


def measure(work: Path) -> dict[str, Any]:
    """Train two rounds, dense and at ratio 2, with a bare batch after each batch of ours."""
    from onnx_shift.exporter import Progress, override, preset, train
    from onnx_shift.portfolio.data import Dataset, Split

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
    bare = _Bare(recipe)
    bare.step()  # warm up
    ours: defaultdict[tuple[int, int], _Time] = defaultdict(_Time)  # by round and epoch
    alone: defaultdict[tuple[int, int], _Time] = defaultdict(_Time)
    before: tuple[tuple[int, int], _Time] | None = None

    def between_batches(progress: Progress) -> None:
        """Our last batch is over, with all that followed it, a checkpoint, too; then a bare one."""
        nonlocal before
        reached = _Time.now()
        if before is not None:
            epoch, start = before
            ours[epoch] += reached - start
        epoch = (progress.round, progress.epoch)
        bare.step()
        done = _Time.now()
        alone[epoch] += done - reached
        before = epoch, done

    with TemporaryDirectory(dir=work) as folder:
        train(recipe, Path(folder) / "run", device="cpu", dataset=data, progress=between_batches)
    rows = [
        {
            "round": "dense" if round_ == 0 else "ratio 2",
            "epoch, s": round(ours[round_, epoch].wall, 2),
            "bare epoch, s": round(alone[round_, epoch].wall, 2),
            "ratio": round(ours[round_, epoch].wall / alone[round_, epoch].wall, 3),
            "ratio of processor time": round(ours[round_, epoch].processor / alone[round_, epoch].processor, 3),
        }
        for round_, epoch in ours
        if epoch < EPOCHS  # a round's last epoch also measures and exports
    ]
    ratios = [row["ratio"] for row in rows]
    return {
        "rows": rows,
        "spread": {"epoch_over_bare_epoch": (min(ratios), max(ratios))},
        "figures": {
            "epoch_over_bare_epoch": statistics.median(ratios),
            "processor_time_over_bare": statistics.median(row["ratio of processor time"] for row in rows),
        },
        "notes": [
            f"Epochs of {BATCHES} batches of 128; with all 391 of CIFAR-10 a checkpoint weighs a twelfth of this.",
            "Measuring the accuracy, once in five epochs by default, comes on top: a forward pass of the test set.",
        ],
    }


@dataclass(frozen=True)
class _Time:
    """Seconds on the clock on the wall, and of all processors spent by this process."""

    wall: float = 0.0
    processor: float = 0.0

    @staticmethod
    def now() -> "_Time":
        return _Time(time.perf_counter(), time.process_time())

    def __add__(self, other: "_Time") -> "_Time":
        return _Time(self.wall + other.wall, self.processor + other.processor)

    def __sub__(self, other: "_Time") -> "_Time":
        return _Time(self.wall - other.wall, self.processor - other.processor)


class _Bare:
    """Forward, backward and update of batches that lie ready."""

    def __init__(self, recipe: Any) -> None:
        import torch

        from onnx_shift.models.registry import build, initialise

        torch.manual_seed(0)
        self.model = build(recipe.model, num_classes=10, in_channels=3, width=recipe.width)
        initialise(self.model, uniform_batchnorm=False)
        self.model = self.model.to(memory_format=torch.channels_last).train()
        self.batches = cycle(
            (
                torch.randn(recipe.batch_size, 3, 32, 32).contiguous(memory_format=torch.channels_last),
                torch.randint(0, 10, (recipe.batch_size,)),
            )
            for _ in range(BATCHES)
        )
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=recipe.weight_decay, fused=True
        )

    def step(self) -> None:
        from torch.nn.functional import cross_entropy

        images, labels = next(self.batches)
        loss = cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
