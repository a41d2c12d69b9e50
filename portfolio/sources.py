"""Where labelled images lie: npz files, folders of images, parquet files, the hub. Each format needs its own package.

A folder or file on this machine is looked for before the hub is asked.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_shift.portfolio.images import Cells, DataError

# How a split's file or folder may begin, or be called.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class Column:
    """One column of a split: what it holds, and for classes their names. "bytes" may be images that nobody calls so."""

    kind: Literal["image", "bytes", "class", "plain", "other"]
    cells: Cells
    class_names: tuple[str, ...] = ()


Part = Mapping[str, Column]


def load(name: str, memory_limit_bytes: int) -> dict[str, Part]:
    """Return the splits of the data set `name` and their columns. Raises DataError naming it, and what it needs.

    Parquet files beyond `memory_limit_bytes` are mapped, not read.
    """
    path = Path(name)
    try:
        if path.suffix == ".npz":
            return _npz(path)
        if path.is_file() or path.is_dir():
            files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
            if path.is_dir() and any(
                (path / folder / file).exists() for folder in _folders(path) for file in _METADATA
            ):
                return _by_datasets(name, "imagefolder", data_dir=str(path))
            if not files:
                return _image_folder(path)
            if sum(file.stat().st_size for file in files) > memory_limit_bytes:
                return _by_datasets(name, "parquet", data_files=_by_split(files, path))
            return {split: _parquet(some) for split, some in _by_split(files, path).items()}
    except (OSError, ValueError) as error:
        raise _refused(name, error) from error
    except ImportError as error:
        extra = {"PIL": "eval", "pyarrow": "parquet"}.get(str(error.name).partition(".")[0], "train")
        raise DataError(f"{name}: needs {error.name}: pip install 'onnx-shift[{extra}]'") from error
    if path.is_absolute() or name.count("/") > 1 or path.suffix == ".parquet":
        raise _refused(name, FileNotFoundError("no such file or folder"))
    hub_name, _, config = name.partition(":")
    return _by_datasets(name, hub_name, config or None)


def _refused(name: str, error: BaseException) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{name}: cannot be opened as a data set ({type(error).__name__}: {reason})")


# --- npz -------------------------------------------------------------------------------------------------------


def _npz(path: Path) -> dict[str, Part]:
    """Arrays x_test and y_test, test_images and test_labels, or without a split images and labels, x and y."""
    arrays = dict(np.load(path, allow_pickle=False))
    found: dict[str, Part] = {}
    for word, split in ({"": "test"} | SPLITS).items():
        for images, labels in (("x", "y"), ("images", "labels")):
            names = [(f"{images}_{word}", f"{labels}_{word}"), (f"{word}_{images}", f"{word}_{labels}")]
            for one, other in names if word else [(images, labels)]:
                if one in arrays and other in arrays and split not in found:
                    found[split] = _pixels(path, one, arrays[one], other, arrays[other])
    if not found:
        raise ValueError(f"it holds {', '.join(arrays)}, and no images and labels, or x_test and y_test")
    return found


def _pixels(path: Path, name: str, images: NDArray[Any], label: str, labels: NDArray[Any]) -> Part:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        shape = "×".join(map(str, images.shape))
        raise ValueError(f"{name} is {images.dtype} {shape}; images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if labels.size != len(images):
        raise ValueError(f"{name} holds {len(images)} images, {label} {labels.size} labels")
    cells = Cells.of(np.ascontiguousarray(images))
    return {"image": Column("image", cells), "label": Column("plain", Cells.of(labels.ravel().tolist()))}


# --- folders of images -----------------------------------------------------------------------------------------


def _folders(path: Path) -> Iterator[str]:
    yield "."
    yield from (folder.name for folder in path.iterdir() if folder.is_dir() and folder.name.lower() in SPLITS)


def _image_folder(path: Path) -> dict[str, Part]:
    """A folder per class, in folders per split where there are any; classes by name."""
    from PIL import Image

    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = sorted(
        (
            file
            for file in path.rglob("*")
            if file.suffix.lower() in endings
            and not any(part.startswith((".", "__")) for part in file.relative_to(path).parts)
        ),
        key=lambda file: file.as_posix(),
    )
    if not files:
        raise FileNotFoundError("it holds no parquet files and no images")
    by_split: dict[str | None, list[Path]] = {}
    for file in files:
        known = [SPLITS[part.lower()] for part in file.relative_to(path).parts[:-1] if part.lower() in SPLITS]
        by_split.setdefault(known[0] if known else None, []).append(file)
    loose = by_split.pop(None, [])
    splits = {str(split): some for split, some in by_split.items()} or {"train": loose}
    used = [file for some in splits.values() for file in some]
    names = tuple(sorted({file.parent.name for file in used}))
    if len(names) < 2 or len({len(file.parts) for file in used}) > 1:
        raise ValueError("its images lie in no folder for each class, all equally deep")
    numbers = {name: number for number, name in enumerate(names)}
    return {
        split: {
            "image": Column("image", Cells.of([{"path": str(file)} for file in some])),
            "label": Column("class", Cells.of([numbers[file.parent.name] for file in some]), names),
        }
        for split, some in splits.items()
    }


# --- parquet files ---------------------------------------------------------------------------------------------


def _parquet(files: Sequence[str]) -> Part:
    import pyarrow as arrow
    from pyarrow import parquet

    table = arrow.concat_tables([parquet.ParquetFile(file).read() for file in files], promote_options="default")
    stated = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = stated.get("info", {}).get("features", {})
    return {
        field.name: _arrow_column(table[field.name], field.type, features.get(field.name)) for field in table.schema
    }


def _arrow_column(values: Any, kind: Any, feature: Any) -> Column:
    from pyarrow import types

    cells = Cells(lambda rows: [values[row].as_py() for row in rows], np.arange(len(values)))
    stated = feature.get("_type") if isinstance(feature, dict) else None
    if stated == "ClassLabel":
        return Column("class", cells, tuple(feature["names"]))
    if stated == "Image":
        return Column("image", cells)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return Column("bytes", cells)
    if types.is_struct(kind):
        return Column("bytes" if kind.get_field_index("bytes") >= 0 else "other", cells)
    is_plain = types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)
    return Column("plain" if is_plain else "other", cells)


def _by_split(files: Sequence[Path], below: Path) -> dict[str, list[str]]:
    """Files by the split that their name, or that of their folder `below` the data set's, begins with; unnamed ones are
    training files.
    """
    splits: dict[str, list[str]] = {}
    for file in files:
        parts = (file.name, *file.relative_to(below).parts[-2:-1])
        known = [split for part in parts for word, split in SPLITS.items() if part.lower().startswith(word)]
        splits.setdefault(known[0] if known else "train", []).append(str(file))
    return splits


# --- what the package datasets reads ---------------------------------------------------------------------------


def _by_datasets(name: str, *source: str | None, **where: Any) -> dict[str, Part]:
    """The hub, and what only `datasets` reads, quietly."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name}: no such file or folder, and the hub needs the package datasets: pip install 'onnx-shift[train]'"
            if not where
            else f"{name}: needs the package datasets: pip install 'onnx-shift[train]'"
        ) from error
    datasets.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):  # they log what they raise, and every attempt on the way
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        loaded = datasets.load_dataset(*source, **where)
    except (OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        raise _refused(
            name if where else f"{name}: no such file or folder, so the hub was asked; it", cause or error
        ) from error
    return {split: {column: _feature(part, column) for column in part.features} for split, part in loaded.items()}


def _feature(part: Any, column: str) -> Column:
    import datasets

    feature = part.features[column]
    rows = np.arange(len(part))
    if type(feature).__name__ == "Image":
        part = part.cast_column(column, datasets.Image(decode=False))
    values = part[column]
    cells = Cells(lambda some: list(values[some]) if not isinstance(values, list) else [values[i] for i in some], rows)
    if type(feature).__name__ == "Image":
        return Column("image", cells)
    if type(feature).__name__ == "ClassLabel":
        return Column("class", cells, tuple(feature.names))
    kind = str(getattr(feature, "dtype", None))
    if kind == "binary" or (isinstance(feature, dict) and "bytes" in feature):
        return Column("bytes", cells)
    is_plain = kind.startswith(("int", "uint")) or kind in ("string", "large_string")
    return Column("plain" if is_plain else "other", cells)
