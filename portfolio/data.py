"""Open an image-classification set, by name or path, as arrays of uint8 images and integer labels.

"digits" is scikit-learn's handwritten digits (embedded, real). Else an npz file, a folder of images, a parquet file or
a folder of them, or a name on the hub ("owner/set" or "owner/set:config"); see `sources`. "package.module:function"
calls a function that returns a `Dataset`, or training images, their labels, test images and theirs.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_shift.files import import_named, search_working_folder
from onnx_shift.portfolio.images import DataError, Encoded, Int64, Uint8, coloured, read_images
from onnx_shift.portfolio.sources import Column, Part, load

Float32 = npt.NDArray[np.float32]

MEMORY_LIMIT_BYTES = 8 << 30  # sets that decode to more are decoded batch by batch
HELD_OUT_SHARE = 5  # a set without a test split: every fifth image, of a fixed shuffle, is held out


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: Uint8) -> Float32:
        """uint8 images (N, C, H, W) to the float32 that a network takes."""
        shape = (1, -1, 1, 1)
        scale = (1 / 255 / np.asarray(self.std, np.float32)).reshape(shape)
        shift = (np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)).reshape(shape)
        return np.asarray(images.astype(np.float32) * scale - shift, np.float32)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) of uint8, or something indexed like them, with labels (N,)."""

    images: Uint8 | Encoded
    labels: Int64

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one size, and the names of their classes."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    only_split: str | None = None  # its name, where `test` was held out of it for want of another

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def measure(self) -> Normalisation:
        """Mean and standard deviation of (at most 10,000) training images."""
        pixels = self.train.images[:10_000].astype(np.float32) / 255
        mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
        return Normalisation(tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std))


def open_dataset(
    name_or_path: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
    train_images: int | None = None,
    decode_train: bool = True,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Dataset:
    """Open a data set by name or path; see the module's text.

    Columns are found by type unless named. Images must be of one size and mode unless `image_size` brings
    them there (shorter side resized, centre cropped). `train_images`: the first of them, or as many of a fixed
    shuffle where the first are not of all classes. A split is decoded at once where that takes no more than
    `memory_limit_bytes`, the training images not without `decode_train`; else when it is indexed. Raises DataError
    with one line that names the set.
    """
    if name_or_path == "digits":
        if image_size is not None or image_column is not None or label_column is not None:
            raise DataError(
                "digits: are built in, 8x8 pixels: --image-size, --image-column and --label-column do not apply"
            )
        return _digits(train_images)
    if _is_function(name_or_path):
        return _of_function(name_or_path, train_images)
    splits = load(name_or_path, memory_limit_bytes)
    train_key = "train" if "train" in splits else next(iter(splits))
    train = splits[train_key]
    image = image_column or _find_image_column(name_or_path, train)
    label = label_column or _find_label_column(name_or_path, train, image)
    for column in (image, label):
        if column not in train:
            raise DataError(f"{name_or_path}: no column {column}; the columns are {', '.join(train)}")
    train_labels, class_names = _labels(name_or_path, label, train[label])
    if len(train_labels) and not 0 <= train_labels.min() <= train_labels.max() < len(class_names):
        wrong = int(train_labels.min() if train_labels.min() < 0 else train_labels.max())
        raise DataError(
            f"{name_or_path}: column {label} holds label {wrong}, but its {len(class_names)} classes are "
            f"0 to {len(class_names) - 1}"
        )
    found = _test_split(name_or_path, splits, train_key, label, class_names)
    cells = train[image].cells
    if found is None:
        order = np.random.default_rng(0).permutation(len(train_labels))
        held_out = np.sort(order[: max(1, len(order) // HELD_OUT_SHARE)])
        rest = np.setdiff1d(order, held_out)
        parts = [(cells.select(rest), train_labels[rest]), (cells.select(held_out), train_labels[held_out])]
    else:
        test_key, test_labels = found
        parts = [(cells, train_labels), (splits[test_key][image].cells, test_labels)]
    if train_images is not None:
        cells, labels = parts[0]
        some = _some(labels, train_images)
        parts[0] = (cells.select(some), labels[some])
    limits = (memory_limit_bytes if decode_train else 0, memory_limit_bytes)
    decoded = [
        Split(read_images(name_or_path, cells, image_size, limit_bytes), labels)
        for (cells, labels), limit_bytes in zip(parts, limits, strict=True)
    ]
    if image_size is not None:
        decoded = _same_channels(decoded)
    if decoded[0].images.shape[1:] != decoded[1].images.shape[1:]:
        raise DataError(
            f"{name_or_path}: training images are {decoded[0].images.shape[1:]}, test images "
            f"{decoded[1].images.shape[1:]}; give --image-size to bring all to one size and mode"
        )
    only_split = train_key if found is None and len(splits) == 1 else None
    return Dataset(name_or_path, decoded[0], decoded[1], class_names, only_split)


def _some(labels: Int64, count: int) -> Int64:
    """Indices of the first `count` labels, or of as many of a fixed shuffle where these are not of all classes."""
    first = np.arange(min(count, len(labels)))
    if len(np.unique(labels[first])) == len(np.unique(labels)):
        return first
    return np.sort(np.random.default_rng(0).permutation(len(labels))[:count])


def _is_function(name: str) -> bool:
    """Whether there is a module of that name; on the hub a colon names a configuration."""
    module, _, function = name.partition(":")
    if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    search_working_folder()
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _of_function(name: str, train_images: int | None) -> Dataset:
    found = import_named(name, "--data")()
    if not isinstance(found, Dataset):
        try:
            pixels, labels, test_pixels, test_labels = (np.asarray(array) for array in found)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"--data {name}: returns no Dataset, and not training and test images with labels"
            ) from error
        names = tuple(str(number) for number in range(int(max(labels.max(), test_labels.max())) + 1))
        found = Dataset(
            name, Split(pixels, labels.astype(np.int64)), Split(test_pixels, test_labels.astype(np.int64)), names
        )
    for split in (found.train, found.test):
        images = split.images
        if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.ndim != 4):
            raise DataError(f"--data {name}: its images are {images.dtype} {images.shape}, not uint8 (N, C, H, W)")
    if train_images is None:
        return found
    some = _some(found.train.labels, train_images)
    return replace(found, train=Split(found.train.images[some], found.train.labels[some]))


def _digits(train_images: int | None) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: needs scikit-learn: pip install 'onnx-shift[digits]'") from error
    bunch = load_digits()
    images = (bunch.images * 15).astype(np.uint8)[:, None]  # pixels are 0..16
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :][:train_images]
    return Dataset(
        "digits",
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
        tuple(str(digit) for digit in range(10)),
    )


def _find_image_column(name: str, columns: Part) -> str:
    found = [key for key, column in columns.items() if column.kind == "image"]
    found = found or [key for key, column in columns.items() if column.kind == "bytes"]
    return _only(name, found, columns, "image")


def _find_label_column(name: str, columns: Part, image: str) -> str:
    found = [key for key, column in columns.items() if column.kind == "class"]
    found = found or [key for key, column in columns.items() if column.kind == "plain" and key != image]
    return _only(name, [key for key in found if key == "label"] or found, columns, "label")


def _only(name: str, found: Sequence[str], columns: Part, what: str) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"several could be the {what}s ({', '.join(found)})" if found else f"none holds {what}s"
    raise DataError(f"{name}: of the columns {', '.join(columns)} {problem}; name one with --{what}-column")


def _labels(
    name: str, label: str, column: Column, class_names: tuple[str, ...] | None = None
) -> tuple[Int64, tuple[str, ...]]:
    """Labels as class numbers, and the names of the classes: the set's own, or the distinct values in order."""
    values = column.cells[:]
    if column.kind == "class":
        return np.asarray([-1 if value is None else value for value in values], np.int64), column.class_names
    if any(value is None for value in values):
        raise DataError(f"{name}: column {label} has empty labels")
    if class_names is None:
        class_names = tuple(str(value) for value in sorted(set(values)))
    numbers = {value: number for number, value in enumerate(class_names)}
    unknown = sorted({str(value) for value in values} - set(numbers))
    if unknown:
        raise DataError(f"{name}: label {unknown[0]} of column {label} does not occur in the training images")
    return np.asarray([numbers[str(value)] for value in values], np.int64), class_names


def _test_split(
    name: str, splits: Mapping[str, Part], train_key: str, label: str, class_names: tuple[str, ...]
) -> tuple[str, Int64] | None:
    """The split to measure on and its labels: "test" where they are known, else "validation", else none."""
    for key in ("test", "validation"):
        if key != train_key and label in splits.get(key, {}) and len(splits[key][label].cells):
            labels, _ = _labels(name, label, splits[key][label], class_names)
            if labels.min() >= 0:
                return key, labels
    return None


def _same_channels(splits: list[Split]) -> list[Split]:
    """Grey images in colour where another split is."""
    channels = max(split.images.shape[1] for split in splits)
    return [
        split if split.images.shape[1] == channels else replace(split, images=coloured(split.images))
        for split in splits
    ]
