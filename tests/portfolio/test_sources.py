"""Every format gives the same images with the packages of training and without."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnx_shift.portfolio.data import DataError, open_dataset
from onnx_shift.portfolio.sources import _by_datasets
from tests.portfolio.test_data import FEATURES, _columns, _write


def _folder(path: Path, *splits: str) -> Path:
    """Three images of two classes below each of `splits`, each with a value of its own."""
    value = 0
    for split in splits or (".",):
        for name in ("left", "right"):
            (path / split / name).mkdir(parents=True)
            for number in (10, 9, 8):
                value += 1
                Image.new("L", (8, 8), value).save(path / split / name / f"{number}.png")
    return path


@pytest.mark.parametrize("splits", [(), ("train", "test"), ("training", "val")])
def test_a_folder_gives_what_the_package_datasets_gives(tmp_path: Path, splits: tuple[str, ...]) -> None:
    path = str(_folder(tmp_path / "images", *splits))
    ours = open_dataset(path)
    theirs = _by_datasets(path, "imagefolder", data_dir=path)
    parts = [ours.train, ours.test] if splits else []
    for part, other in zip(parts, theirs.values(), strict=bool(splits)):
        values = [np.asarray(Image.open(cell["path"]))[0, 0] for cell in other["image"].cells[:]]
        assert part.images[:, 0, 0, 0].tolist() == values
        assert part.labels.tolist() == other["label"].cells[:]
    if not splits:
        assert sorted(np.concatenate([ours.train.images, ours.test.images])[:, 0, 0, 0].tolist()) == [1, 2, 3, 4, 5, 6]
    assert ours.class_names == theirs["train"]["label"].class_names == ("left", "right")


def test_parquet_beyond_the_limit_gives_what_it_gives_below(tmp_path: Path) -> None:
    path = str(_write(tmp_path / "train.parquet", _columns(10), FEATURES))
    read, mapped = open_dataset(path), open_dataset(path, memory_limit_bytes=100)
    assert read.class_names == mapped.class_names == ("no", "yes")
    assert np.array_equal(read.test.images, mapped.test.images[:])
    assert np.array_equal(read.test.labels, mapped.test.labels)


@pytest.mark.parametrize(
    "names", [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "val_images", "val_labels")]
)
def test_npz_files_serve_in_any_order_of_axes(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)
    labels = np.array([0, 1, 1, 0])
    for given in (images, images.transpose(0, 3, 1, 2)):
        np.savez(tmp_path / "set.npz", **dict(zip(names, (given, labels, given[1:], labels[1:, None]), strict=True)))
        data = open_dataset(str(tmp_path / "set.npz"))
        assert np.array_equal(data.train.images, images.transpose(0, 3, 1, 2))
        assert data.test.labels.tolist() == [1, 1, 0] and data.only_split is None
    np.savez(tmp_path / "one.npz", images=images[..., 0], labels=labels)
    assert open_dataset(str(tmp_path / "one.npz")).image_shape == (1, 5, 6)


def test_npz_files_that_hold_no_images_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match=r"set.npz: cannot be opened .*it holds weights, and no images and labels"):
        open_dataset(str(tmp_path / "set.npz"))
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 8, 8), np.float32), y=np.zeros(2))
    with pytest.raises(DataError, match=r"x is float32 2×8×8; images are uint8"):
        open_dataset(str(tmp_path / "set.npz"))


WITHOUT = """
import sys
for name in {missing}: sys.modules[name] = None
import numpy as np
from onnx_shift.portfolio.data import open_dataset
data = open_dataset({path!r}, image_size=4)
print(len(data.train), len(data.test), int(data.test.images[:].sum()))
"""


@pytest.mark.parametrize("kind", ["folder", "npz", "parquet"])
def test_a_device_reads_the_same_images_without_the_packages_of_training(tmp_path: Path, kind: str) -> None:
    missing = ["torch", "datasets", "scipy", "sklearn", *([] if kind == "parquet" else ["pyarrow"])]
    if kind == "folder":
        path = _folder(tmp_path / "images", "train", "test")
    elif kind == "npz":
        path = tmp_path / "set.npz"
        np.savez(path, images=np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8), labels=np.arange(5))
    else:
        path = _write(tmp_path / "train.parquet", _columns(10), FEATURES)
    code = WITHOUT.format(missing=missing, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    data = open_dataset(str(path), image_size=4)
    assert done.stdout.split() == [str(len(data.train)), str(len(data.test)), str(int(data.test.images[:].sum()))]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "train.parquet", _columns(4), FEATURES)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"train.parquet: needs pyarrow: pip install 'onnx-shift\[parquet\]'"):
        open_dataset(str(path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"some: no such file or folder, and the hub needs .*onnx-shift\[train\]"):
        open_dataset("some")
