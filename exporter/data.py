"""Open an image-classification set, by name or path, as arrays of uint8 images and integer labels.

"digits" is scikit-learn's handwritten digits (embedded, real). Anything else is read by Hugging Face
`datasets`: a parquet file or a folder of them, a folder of images, or a name on the hub ("owner/set" or
"owner/set:config").
"""

import io
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_shift.errors import OnnxShiftError

Uint8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

MEMORY_LIMIT_BYTES = 8 << 30  # sets that decode to more are decoded batch by batch
_SPLITS = ("train", "test", "validation", "valid", "val")
HELD_OUT_SHARE = 5  # a set without a test split: every fifth image, of a fixed shuffle, is held out


class DataError(OnnxShiftError):
    """A data set that cannot be opened, or whose columns, images or labels cannot be used."""


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
class Encoded:
    """Images kept as encoded bytes and decoded when indexed; stands in for a uint8 array (N, C, H, W)."""

    name: str
    column: Any  # a datasets column whose items are {"bytes": …, "path": …}
    mode: str
    size: tuple[int, int]  # height, width
    resize: bool
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(thread_name_prefix="decode"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.column), 1 if self.mode == "L" else 3, *self.size)

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Uint8:
        indices = list(range(*index.indices(len(self)))) if isinstance(index, slice) else index.tolist()
        with self.lock:  # many at once: one by one takes longer than to decode them
            if isinstance(self.column, list):
                cells = [self.column[i] for i in indices]
            else:
                cells = self.column[index if isinstance(index, slice) else indices]
        decoded = list(self.pool.map(self._decode, zip(indices, cells, strict=True)))
        stacked = np.stack(decoded)
        return np.ascontiguousarray(stacked[:, None] if self.mode == "L" else stacked.transpose(0, 3, 1, 2))

    def _decode(self, item: tuple[int, dict[str, Any]]) -> Uint8:
        index, cell = item
        image = _open_image(cell, f"{self.name}: image {index}")
        if self.resize:
            return np.asarray(_fit(image.convert(self.mode), self.size))
        if image.mode != self.mode or (image.height, image.width) != self.size:
            raise DataError(
                f"{self.name}: image {index} is {image.mode} {image.width}x{image.height}, image 0 "
                f"{self.mode} {self.size[1]}x{self.size[0]}; --image-size brings all to one size and mode"
            )
        return np.asarray(image)


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
    splits = _load(name_or_path)
    train_key = next((key for key in ("train", "training") if key in splits), next(iter(splits)))
    train = splits[train_key]
    image = image_column or _find_image_column(name_or_path, train.features)
    label = label_column or _find_label_column(name_or_path, train.features, image)
    for column in (image, label):
        if column not in train.features:
            found = ", ".join(train.features)
            raise DataError(f"{name_or_path}: no column {column}; the columns are {found}")
    train_labels, class_names = _labels(name_or_path, train, label)
    if len(train_labels) and not 0 <= train_labels.min() <= train_labels.max() < len(class_names):
        wrong = int(train_labels.min() if train_labels.min() < 0 else train_labels.max())
        raise DataError(
            f"{name_or_path}: column {label} holds label {wrong}, but its {len(class_names)} classes are "
            f"0 to {len(class_names) - 1}"
        )
    test_key = _test_split(name_or_path, splits, train_key, label, class_names)
    if test_key is None:
        order = np.random.default_rng(0).permutation(len(train_labels))
        held_out = np.sort(order[: max(1, len(order) // HELD_OUT_SHARE)])
        rest = np.setdiff1d(order, held_out)
        parts = [(train.select(rest), train_labels[rest]), (train.select(held_out), train_labels[held_out])]
    else:
        test_labels, _ = _labels(name_or_path, splits[test_key], label, class_names)
        parts = [(train, train_labels), (splits[test_key], test_labels)]
    if train_images is not None:
        part, labels = parts[0]
        some = _some(labels, train_images)
        parts[0] = (part.select(some), labels[some])
    limits = (memory_limit_bytes if decode_train else 0, memory_limit_bytes)
    decoded: list[Split] = []
    for (part, labels), limit_bytes in zip(parts, limits, strict=True):
        images = _images(name_or_path, part, image, image_size, limit_bytes)
        decoded.append(Split(images, labels))
    if image_size is not None:
        decoded = _same_channels(decoded)
    if decoded[0].images.shape[1:] != decoded[1].images.shape[1:]:
        raise DataError(
            f"{name_or_path}: training images are {decoded[0].images.shape[1:]}, test images "
            f"{decoded[1].images.shape[1:]}; give --image-size to bring all to one size and mode"
        )
    only_split = train_key if test_key is None and len(splits) == 1 else None
    return Dataset(name_or_path, decoded[0], decoded[1], class_names, only_split)


def _some(labels: Int64, count: int) -> Int64:
    """Indices of the first `count` labels, or of as many of a fixed shuffle where these are not of all classes."""
    first = np.arange(min(count, len(labels)))
    if len(np.unique(labels[first])) == len(np.unique(labels)):
        return first
    return np.sort(np.random.default_rng(0).permutation(len(labels))[:count])


def _digits(train_images: int | None) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: needs scikit-learn, part of the extra onnx-shift[train]") from error
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


def _load(name: str) -> dict[str, Any]:
    """Splits by name, through `datasets`, quietly."""
    try:
        import datasets
        from PIL.Image import registered_extensions
    except ImportError as error:
        raise DataError(f"{name}: needs the package datasets, part of the extra onnx-shift[train]") from error
    datasets.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):  # they log what they raise, and every attempt on the way
        logging.getLogger(library).setLevel(logging.CRITICAL)
    path = Path(name)
    try:
        if path.is_file() or path.is_dir():
            files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
            if not files and not any(file.suffix.lower() in registered_extensions() for file in path.rglob("*")):
                raise FileNotFoundError("it holds no parquet files and no images")
            if files:
                loaded = datasets.load_dataset("parquet", data_files=_by_split(files, path))
            else:
                splits = {f.name.lower(): f"{f}/**" for f in path.iterdir() if f.name.lower() in _SPLITS}
                # "Train" it would take for a class.
                capitals = "train" in splits and not (path / "train").exists()
                where = {"data_files": splits} if capitals else {"data_dir": str(path)}
                loaded = datasets.load_dataset("imagefolder", **where)
        elif path.is_absolute() or name.count("/") > 1 or path.suffix == ".parquet":
            raise FileNotFoundError("no such file or folder")
        else:
            hub_name, _, config = name.partition(":")
            loaded = datasets.load_dataset(hub_name, config or None)
    except (OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        reason = " ".join(str(cause or error).split())[:200]
        raise DataError(
            f"{name}: cannot be opened as a data set ({type(cause or error).__name__}: {reason})"
        ) from error
    return dict(loaded)


def _by_split(files: Sequence[Path], below: Path) -> dict[str, list[str]]:
    """Files by the split that their name, or that of their folder `below` the data set's, begins with; unnamed ones are
    training files.
    """
    splits: dict[str, list[str]] = {}
    for file in files:
        known = [
            split
            for part in (file.name, *file.relative_to(below).parts[-2:-1])
            for split in _SPLITS
            if part.lower().startswith(split)
        ]
        splits.setdefault(known[0] if known else "train", []).append(str(file))
    return splits


def _find_image_column(name: str, features: Any) -> str:
    found = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    if not found:  # parquet written without the hub's own metadata
        found = [key for key, feature in features.items() if isinstance(feature, dict) and "bytes" in feature]
        found += [key for key, feature in features.items() if getattr(feature, "dtype", None) == "binary"]
    return _only(name, found, features, "image")


def _find_label_column(name: str, features: Any, image: str) -> str:
    found = [key for key, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if not found:
        kinds = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "string", "large_string")
        found = [key for key, f in features.items() if key != image and getattr(f, "dtype", None) in kinds]
    return _only(name, [key for key in found if key == "label"] or found, features, "label")


def _only(name: str, found: list[str], features: Any, what: str) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"several could be the {what}s ({', '.join(found)})" if found else f"none holds {what}s"
    raise DataError(f"{name}: of the columns {', '.join(features)} {problem}; name one with --{what}-column")


def _labels(
    name: str, part: Any, column: str, class_names: tuple[str, ...] | None = None
) -> tuple[Int64, tuple[str, ...]]:
    """Labels as class numbers, and the names of the classes: the set's own, or the distinct values in
    order.
    """
    values = part[column][:] if not isinstance(part[column], list) else part[column]
    feature = part.features[column]
    if type(feature).__name__ == "ClassLabel":
        labels = np.asarray([-1 if value is None else value for value in values], np.int64)
        return labels, tuple(feature.names)
    if any(value is None for value in values):
        raise DataError(f"{name}: column {column} has empty labels")
    if class_names is None:
        class_names = tuple(str(value) for value in sorted(set(values)))
    numbers = {label: number for number, label in enumerate(class_names)}
    unknown = sorted({str(value) for value in values} - set(numbers))
    if unknown:
        raise DataError(f"{name}: label {unknown[0]} of column {column} does not occur in the training images")
    return np.asarray([numbers[str(value)] for value in values], np.int64), class_names


def _test_split(
    name: str, splits: dict[str, Any], train_key: str, label: str, class_names: tuple[str, ...]
) -> str | None:
    """The split to measure on: "test" where its labels are known, else a validation split, else none."""
    for key in ("test", "validation", "valid", "val"):
        if key in splits and key != train_key and label in splits[key].features and len(splits[key]):
            labels, _ = _labels(name, splits[key], label, class_names)
            if labels.min() >= 0:
                return key
    return None


def _images(name: str, part: Any, column: str, image_size: int | None, limit_bytes: int) -> Uint8 | Encoded:
    import datasets

    if not len(part):
        raise DataError(f"{name}: holds no images")
    cells = part.cast_column(column, datasets.Image(decode=False))[column]
    first = _open_image(cells[0], f"{name}: image 0")
    some = [first]
    if image_size is not None:
        some += [_open_image(cells[i], f"{name}: image {i}") for i in range(1, min(len(cells), 64))]
    if deep := next((image.mode for image in some if image.mode.startswith(("I", "F"))), None):
        raise DataError(f"{name}: images of mode {deep} have more than 8 bits a channel; convert them first")
    if image_size is not None:
        mode = "L" if all(image.mode in ("L", "1") for image in some) else "RGB"
        size = (image_size, image_size)
    else:
        mode, size = first.mode, (first.height, first.width)
        if mode not in ("L", "RGB"):
            raise DataError(f"{name}: images of mode {mode}; L and RGB are taken, --image-size converts to one of them")
    encoded = Encoded(name, cells, mode, size, resize=image_size is not None)
    if np.prod(encoded.shape) > limit_bytes:
        return encoded
    images = np.empty(encoded.shape, np.uint8)
    for start in range(0, len(images), 1024):
        images[start : start + 1024] = encoded[start : start + 1024]
    encoded.pool.shutdown()
    return images


def _same_channels(splits: list[Split]) -> list[Split]:
    """Grey images in colour where another split is."""
    channels = max(split.images.shape[1] for split in splits)
    return [
        split if split.images.shape[1] == channels else Split(_coloured(split.images), split.labels) for split in splits
    ]


def _coloured(grey: Uint8 | Encoded) -> Uint8 | Encoded:
    return replace(grey, mode="RGB") if isinstance(grey, Encoded) else np.repeat(grey, 3, axis=1)


def _open_image(cell: Any, where: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        source = io.BytesIO(cell["bytes"]) if cell.get("bytes") is not None else cell["path"]
        image = Image.open(source)
        image.load()
    except (
        OSError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        AttributeError,
        TypeError,
        KeyError,
        ValueError,
    ) as error:
        raise DataError(f"{where} cannot be decoded ({error})") from error
    return image


def _fit(image: Any, size: tuple[int, int]) -> Any:
    """Resize the shorter side to the size, crop the centre."""
    from PIL import ImageOps

    return ImageOps.fit(image, (size[1], size[0]))
