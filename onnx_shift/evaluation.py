"""Test images as a model takes them: the data set by name or path, normalised as the model's metadata say."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnx_shift.errors import OnnxShiftError

Batches = Callable[[], Iterator[tuple[NDArray[Any], NDArray[Any]]]]
_BATCH_IMAGES = 256


def labelled_images(
    data: str,
    model: Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
) -> Batches:
    """Open the test images of `data` once and return a function that yields (images, labels) for `model`.

    Images are normalised by `mean` and `std` where given, else as the model's metadata say, else as measured
    on the training images. Raises OnnxShiftError naming the data set where it cannot be opened.
    """
    try:
        from onnx_shift.exporter.data import open_dataset
    except ImportError as error:
        raise OnnxShiftError(
            f"{data}: test images need the extra onnx-shift[train] ({error.name})"
        ) from error

    dataset = open_dataset(data, image_size=image_size)
    normalisation = _normalisation(model, mean, std) or dataset.measure()

    def batches() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for start in range(0, len(dataset.test), _BATCH_IMAGES):
            part = slice(start, start + _BATCH_IMAGES)
            yield normalisation.apply(dataset.test.images[part]), dataset.test.labels[part]

    return batches


def _normalisation(model: Path, mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    from onnx_shift.exporter.data import Normalisation
    from onnx_shift.onnx_pruner.graph import read_model

    if (mean is None) != (std is None):
        raise OnnxShiftError("--mean and --std belong together: one was given without the other")
    if mean is not None and std is not None:
        return Normalisation(tuple(mean), tuple(std))
    stated = {prop.key: prop.value for prop in read_model(model).model.metadata_props}
    if "onnx_shift.normalisation" not in stated:
        return None
    try:
        found = json.loads(stated["onnx_shift.normalisation"])
        return Normalisation(tuple(found["mean"]), tuple(found["std"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OnnxShiftError(f"{model}: its metadata onnx_shift.normalisation make no sense") from error
