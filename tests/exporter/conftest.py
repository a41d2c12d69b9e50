"""A recipe and images so small that a whole run takes a second."""

import io
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
from numpy.random import default_rng
from PIL import Image
from torch import nn

from onnx_shift.exporter.checkpoint import load_checkpoint
from onnx_shift.exporter.recipe import Recipe, override, preset
from onnx_shift.exporter.rounds import Progress, Run, train
from onnx_shift.models.registry import build, initialise
from onnx_shift.portfolio.data import Dataset, Split


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """96 training and 32 test images of 8x8 pixels, of four classes that differ in brightness."""
    rng = default_rng(0)
    labels = rng.integers(0, 4, 128)
    images = (labels[:, None, None, None] * 50 + rng.integers(0, 60, (128, 1, 8, 8))).astype("uint8")
    names = ("dark", "dim", "light", "bright")
    return Dataset("tiny", Split(images[:96], labels[:96]), Split(images[96:], labels[96:]), names)


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Three levels of two epochs of three batches; rewinds to the second batch."""
    return override(preset("digits"), levels=2, epochs=2, batch_size=32, width=0.25, rewind_steps=1, weight_decay=1e-4)


@pytest.fixture
def run(tiny_data: Dataset, tmp_path: Path) -> Callable[..., Run]:
    """Train a recipe on the tiny images into the test's folder."""

    def start(recipe: Recipe, folder: str = "run", **options: object) -> Run:
        return train(recipe, tmp_path / folder, device="cpu", dataset=tiny_data, **options)

    return start


@pytest.fixture
def write_parquet(tiny_data: Dataset) -> Callable[[Path], Path]:
    """Write the tiny training images to a parquet file, each as PNG bytes."""

    def write(path: Path) -> Path:
        cells = []
        for image in tiny_data.train.images:
            buffer = io.BytesIO()
            Image.fromarray(image[0]).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        columns = {"image": cells, "label": tiny_data.train.labels.tolist()}
        datasets.Dataset.from_dict(columns).to_parquet(str(path))
        return path

    return write


Start = Callable[..., Run]


def stored_weights(folder: Path, round_: int) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_checkpoint(folder / f"checkpoints/round-{round_:02d}.pt")["model"]
    return weights


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


class StoppedError(Exception):
    pass


def stop_at(batch: int) -> Callable[[Progress], None]:
    seen = 0

    def count(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == batch:
            raise StoppedError

    return count


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    model = build("resnet20-cifar", num_classes=4, in_channels=1, width=0.5)
    initialise(model, uniform_batchnorm=True)
    return model
