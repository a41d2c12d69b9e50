"""What `profile` needs around the measuring: models that can be measured, and test images as each takes them."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_shift.errors import OnnxShiftError
from onnx_shift.ort import CPU
from onnx_shift.portfolio.data import Dataset, Normalisation, Split, open_dataset

Batches = Callable[[], Iterator[tuple[NDArray[Any], NDArray[Any]]]]
_BATCH_IMAGES = 256


@dataclass(frozen=True)
class Evaluation:
    """Test images and labels as each model takes them, and a remark where they are not a set's own test split.

    `training` are those of the training split, shuffled, for calibration.
    """

    batches: Mapping[Path, Batches]
    training: Mapping[Path, Batches]
    note: str | None = None


def labelled_images(data: str, model: Path) -> Batches:
    """Open the test images of `data` once and return a function that yields (images, labels) for `model`."""
    return evaluation(data, [model]).batches[model]


def evaluation(
    data: str,
    models: Sequence[Path],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    provider: str = CPU,
) -> Evaluation:
    """Open the test images of `data` once, for every model as it takes them.

    Images are normalised by `mean` and `std` where given, else as the model's metadata say, else as measured on
    the training images; classes that the model's metadata name are found by name. A set of one split is all test
    images, but for models that `train` made of it. Raises OnnxShiftError naming the option, the data set or the
    model where they do not fit together.
    """
    given = _given_normalisation(mean, std)
    dataset = open_dataset(
        data, image_size=image_size, image_column=image_column, label_column=label_column, decode_train=False
    )
    stated = {model: _metadata(model) for model in models}
    trained = any("recipe_hash" in entries for entries in stated.values())
    parts, note = _test_images(dataset, trained)
    measured = None
    batches, training = {}, {}
    for model in models:
        normalisation = given or _stated_normalisation(model, stated[model])
        if normalisation is None:
            normalisation = measured = measured or dataset.measure()
        _check_channels(normalisation, dataset, None if given else model)
        numbers = _class_numbers(dataset, model, stated[model])
        batches[model] = _batches(parts, normalisation, numbers)
        training[model] = _shuffled(dataset.train, normalisation, numbers)
        last = max(numbers[part.labels].max() for part in parts)
        _check_fit(dataset, model, batches[model], last, provider)
    return Evaluation(batches, training, note)


def check_models(
    models: Sequence[Path],
    dense: Path | None,
    input_shapes: Mapping[str, Sequence[int]],
    provider: str = CPU,
) -> None:
    """Refuse, before any work is done, a model or an option that `profile` would stumble over at the end."""
    from onnx_shift.ort import ORT_ERRORS
    from onnx_shift.portfolio.inputs import variant_name
    from onnx_shift.portfolio.machine import check_providers
    from onnx_shift.portfolio.pack import check_name
    from onnx_shift.portfolio.sessions import SessionError, open_session, random_inputs

    check_providers([provider])
    for model in models:
        check_name(model, variant_name(model))
    named = dense is not None and str(dense) in map(variant_name, models)  # a variant of a portfolio
    if dense is not None and not named and dense.resolve() not in [model.resolve() for model in models]:
        raise OnnxShiftError("{dense}: is none of the models to profile", dense=dense)
    for model in models:
        _metadata(model)  # names what is no model
        session = open_session(model, [provider], 1)
        try:
            feed = random_inputs(session, 1, 0, input_shapes)
            session.run(None, feed)
        except SessionError as error:
            hint = "; see {input_shapes}" if "shape" in str(error) else ""
            raise OnnxShiftError(f"{model}: {error}{hint}", input_shapes=None) from error
        except ORT_ERRORS as error:
            shapes = ", ".join(f"{name} of shape {value.shape}" for name, value in feed.items())
            reason = f"{model}: onnxruntime does not run it on {shapes} ({error})"
            raise OnnxShiftError(f"{reason}; see {{input_shapes}}", input_shapes=None) from error


def _given_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalisation | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise OnnxShiftError("{mean} and {std} belong together: one was given without the other", mean=None, std=None)
    if len(mean) != len(std):
        raise OnnxShiftError(
            f"{{mean}} and {{std}} belong together: {len(mean)} numbers and {len(std)}", mean=None, std=None
        )
    for number in std:
        if not 0 < number < math.inf:
            raise OnnxShiftError("{std}: must be above 0 and finite", std=f"{number:g}")
    for number in mean:
        if not math.isfinite(number):
            raise OnnxShiftError("{mean}: must be finite", mean=f"{number:g}")
    return Normalisation(tuple(mean), tuple(std))


def _metadata(model: Path) -> dict[str, str]:
    from onnx_shift.onnx_pruner.graph.reading import read_model
    from onnx_shift.portfolio.profiling import stated_metadata

    return stated_metadata(read_model(model).model)


def _stated_normalisation(model: Path, stated: Mapping[str, str]) -> Normalisation | None:
    if "normalisation" not in stated:
        return None
    try:
        found = json.loads(stated["normalisation"])
        mean, std = ([float(number) for number in found[key]] for key in ("mean", "std"))
        if len(mean) != len(std) or not all(0 < number < math.inf for number in std):
            raise ValueError
        return Normalisation(tuple(mean), tuple(std))
    except (ValueError, KeyError, TypeError) as error:
        raise OnnxShiftError(f"{model}: its metadata onnx_shift.normalisation make no sense") from error


def _check_channels(normalisation: Normalisation, dataset: Dataset, model: Path | None) -> None:
    count, channels = len(normalisation.mean), dataset.image_shape[0]
    if count not in (1, channels):
        whose = "{mean} and {std}" if model is None else f"{model}: its metadata onnx_shift.normalisation"
        images = f"{channels:,} channel{'' if channels == 1 else 's'}"
        raise OnnxShiftError(
            f"{whose} have {count} numbers, the images of {dataset.name} {images}", mean=None, std=None
        )


def _test_images(dataset: Dataset, trained: bool) -> tuple[Sequence[Split], str | None]:
    """The splits to measure on. What `train` held out of a set's only split it holds out here as well."""
    if dataset.only_split is None:
        return [dataset.test], None
    if trained and dataset.only_split == "train":
        return [dataset.test], (
            f"{dataset.name} has no test split: accuracy is that of the {len(dataset.test)} images which train "
            "holds out of it; a file whose name begins with test is taken whole"
        )
    count = len(dataset.train) + len(dataset.test)
    return [dataset.train, dataset.test], f"{dataset.name} has one split: all {count} images are test images"


def _class_numbers(dataset: Dataset, model: Path, stated: Mapping[str, str]) -> NDArray[np.int64]:
    """The model's number for each class of the data set: by name where its metadata name them all."""
    numbers = np.arange(len(dataset.class_names))
    if "class_names" not in stated:
        return numbers
    try:
        names = [str(name) for name in json.loads(stated["class_names"])]
    except (ValueError, TypeError) as error:
        raise OnnxShiftError(f"{model}: its metadata onnx_shift.class_names make no sense") from error
    known = [name for name in dataset.class_names if name in names]
    if known == list(dataset.class_names):
        return np.asarray([names.index(name) for name in dataset.class_names])
    if known and len(names) >= len(dataset.class_names):
        other = next(name for name in dataset.class_names if name not in names)
        raise OnnxShiftError(f"{dataset.name}: its class {other} is none of the classes that {model} names")
    return numbers


def _batches(parts: Sequence[Split], normalisation: Normalisation, numbers: NDArray[np.int64]) -> Batches:
    def batches() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for part in parts:
            for start in range(0, len(part), _BATCH_IMAGES):
                some = slice(start, start + _BATCH_IMAGES)
                yield normalisation.apply(part.images[some]), numbers[part.labels[some]]

    return batches


def _shuffled(part: Split, normalisation: Normalisation, numbers: NDArray[np.int64]) -> Batches:
    def batches() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        order = np.random.default_rng(0).permutation(len(part))
        for start in range(0, len(part), _BATCH_IMAGES):
            some = np.sort(order[start : start + _BATCH_IMAGES])
            yield normalisation.apply(part.images[some]), numbers[part.labels[some]]

    return batches


def _check_fit(dataset: Dataset, model: Path, batches: Batches, last_label: int, provider: str) -> None:
    """Refuse a model that does not classify the images, found out on one of them."""
    from onnx_shift.portfolio.accuracy import measure_accuracy
    from onnx_shift.portfolio.profile import ProfileError

    images, _ = next(batches())
    try:
        measure_accuracy(model, [(images[:1], np.array([last_label]))], provider)
    except ProfileError as error:
        raise OnnxShiftError(f"{{data}}: {error}", data=dataset.name) from error
