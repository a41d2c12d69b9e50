"""Data sets by name and path: columns and classes found by type, one-line refusals, decoding on demand."""

import io
import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from onnx_shift.portfolio.data import DataError, Encoded, Normalisation, open_dataset
from onnx_shift.portfolio.sources import _by_datasets

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def _png(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> dict[str, object]:
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, value, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _write(path: Path, columns: dict[str, list[object]], features: datasets.Features | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))
    return path


FEATURES = datasets.Features(
    {
        "id": datasets.Value("int64"),
        "picture": datasets.Image(),
        "kind": datasets.ClassLabel(names=["no", "yes"]),
    }
)


def _columns(count: int) -> dict[str, list[object]]:
    return {
        "id": list(range(count)),
        "picture": [_png(value) for value in range(count)],
        "kind": [value % 2 for value in range(count)],
    }


def test_digits_are_built_in() -> None:
    data = open_dataset("digits")
    assert (len(data.train), len(data.test), data.image_shape) == (1438, 359, (1, 8, 8))
    assert data.train.images.max() == 240
    assert data.class_names == tuple("0123456789")
    assert np.bincount(data.test.labels, minlength=10).min() > 20


def test_columns_and_class_names_are_found_by_type(tmp_path: Path) -> None:
    _write(tmp_path / "train-00000.parquet", _columns(10), FEATURES)
    _write(tmp_path / "validation.parquet", _columns(4), FEATURES)
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.test), data.image_shape) == (10, 4, (3, 8, 8))
    assert data.class_names == ("no", "yes")
    assert data.train.images[7, 0, 3, 3] == 7
    assert data.train.images[7, 2, 3, 3] == 0
    assert data.train.labels.tolist() == [0, 1] * 5


def test_without_a_test_split_a_fifth_is_held_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "all.parquet", _columns(20), FEATURES)
    data = open_dataset(str(path))
    assert (len(data.train), len(data.test)) == (16, 4)
    assert data.only_split == "train"
    values = sorted([*data.train.images[:, 0, 0, 0].tolist(), *data.test.images[:, 0, 0, 0].tolist()])
    assert values == list(range(20))


def test_a_test_split_without_labels_gives_way_to_validation(tmp_path: Path) -> None:
    _write(tmp_path / "train.parquet", _columns(6), FEATURES)
    _write(tmp_path / "test.parquet", _columns(5) | {"kind": [-1] * 5}, FEATURES)
    _write(tmp_path / "validation.parquet", _columns(4), FEATURES)
    assert len(open_dataset(str(tmp_path)).test) == 4


def test_plain_bytes_and_text_labels_serve_too(tmp_path: Path) -> None:
    columns = {"image": [_png(value, mode="L") for value in range(6)], "animal": ["cat", "ant", "bee"] * 2}
    path = _write(tmp_path / "train.parquet", columns)
    data = open_dataset(str(path))
    assert data.class_names == ("ant", "bee", "cat")
    assert data.image_shape == (1, 8, 8)


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "TEST")])
def test_a_folder_of_images_serves(names: tuple[str, str], tmp_path: Path) -> None:
    for split, count in zip(names, (3, 2), strict=True):
        for name in ("left", "right"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.test), data.class_names) == (6, 4, ("left", "right"))


def test_mixed_images_are_refused_or_brought_to_one_size(tmp_path: Path) -> None:
    columns = _columns(5)
    columns["picture"][3] = _png(200, size=(10, 6), mode="L")
    path = str(_write(tmp_path / "train.parquet", columns, FEATURES))
    with pytest.raises(DataError, match=r"image [0-4] is L 10x6, image 0 RGB 8x8; --image-size"):
        open_dataset(path)
    assert open_dataset(path, image_size=6).image_shape == (3, 6, 6)
    grey = _columns(4) | {"picture": [_png(50 + value, mode="L") for value in range(4)]}
    _write(tmp_path / "test.parquet", grey, FEATURES)
    for limit in (0, 1 << 20):  # decoded batch by batch, and in memory
        test = open_dataset(str(tmp_path), image_size=6, memory_limit_bytes=limit).test
        assert test.images[1:2][0, :, 0, 0].tolist() == [51] * 3
    columns["picture"][0], columns["picture"][3] = columns["picture"][3], columns["picture"][0]
    path = str(_write(tmp_path / "grey-first" / "train.parquet", columns, FEATURES))
    assert open_dataset(path, image_size=6).image_shape == (3, 6, 6)


def test_a_set_too_large_for_memory_is_decoded_on_demand(tmp_path: Path) -> None:
    path = str(_write(tmp_path / "train.parquet", _columns(10), FEATURES))
    held, decoded = open_dataset(path), open_dataset(path, memory_limit_bytes=100)
    assert isinstance(held.train.images, np.ndarray)
    assert not isinstance(decoded.train.images, np.ndarray)
    index = np.array([5, 0, 5])
    assert np.array_equal(decoded.train.images[index], held.train.images[index])
    assert np.array_equal(decoded.train.images[2:4], held.train.images[2:4])
    assert decoded.measure() == held.measure()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"kind": [0, -1, 1, 0]}, {}, "column kind holds label -1, but its 2 classes are 0 to 1"),
        ({"second": [0] * 4}, {"label_column": "none"}, "no column none; the columns are id, picture"),
        ({"kind": None}, {}, "several could be the labels .id, second.; name one with --label-column"),
        ({"picture": None}, {}, "none holds images; name one with --image-column"),
        ({"picture": [{"bytes": b"no picture", "path": None}] * 4}, {}, "image 0 cannot be decoded"),
    ],
)
def test_what_cannot_be_used_is_named(
    change: dict[str, object], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    columns = {key: value for key, value in (_columns(4) | {"second": [0] * 4} | change).items() if value}
    features = datasets.Features({**FEATURES, "second": datasets.Value("int64")})
    path = _write(tmp_path / "train.parquet", columns, datasets.Features({key: features[key] for key in columns}))
    with pytest.raises(DataError, match=message):
        open_dataset(str(path), **options)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be opened as a data set"):
        open_dataset(str(path))
    for name in (
        "missing.parquet",
        str(tmp_path / "missing"),
        "no/such/set",
    ):  # none of which the hub is asked for
        with pytest.raises(DataError, match=r"cannot be opened as a data set \(.*no such file or folder\)"):
            open_dataset(name)


def test_the_libraries_below_log_nothing_of_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        _by_datasets("missing", "imagefolder", data_dir=str(tmp_path / "missing"))
    for library in ("datasets.packaged_modules.parquet", "huggingface_hub.utils._http"):
        assert not logging.getLogger(library).isEnabledFor(logging.ERROR)


def test_digits_take_no_options() -> None:
    for options in ({"image_size": 32}, {"label_column": "kind"}):
        with pytest.raises(DataError, match="digits: are built in, 8x8 pixels: --image-size, --image-column"):
            open_dataset("digits", **options)


def test_normalisation_scales_pixels() -> None:
    images = np.array([[[[0, 255]], [[51, 102]]]], np.uint8)
    scaled = Normalisation((0.5, 0.2), (0.5, 0.1)).apply(images)
    assert scaled.dtype == np.float32
    assert np.allclose(scaled, [[[[-1, 1]], [[0, 2]]]], atol=1e-6)


def test_images_of_sixteen_bits_are_refused_also_where_they_are_resized(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.fromarray(np.full((8, 8), 300 * index, np.uint16)).save(tmp_path / name / f"{index}.png")
    with pytest.raises(DataError, match=r"images of mode I;16 have more than 8 bits a channel; convert them first"):
        open_dataset(str(tmp_path), image_size=8)


def test_train_images_cut_the_training_split_alone() -> None:
    data, all_of_it = open_dataset("digits", train_images=100), open_dataset("digits")
    assert (len(data.train), len(data.test)) == (100, 359)
    assert np.array_equal(data.train.images, all_of_it.train.images[:100])


@pytest.mark.parametrize("in_order_of_class", [False, True])
def test_train_images_are_of_all_classes(tmp_path: Path, in_order_of_class: bool) -> None:
    kinds = [value // 20 if in_order_of_class else value % 2 for value in range(40)]
    _write(tmp_path / "train.parquet", _columns(40) | {"kind": kinds}, FEATURES)
    _write(tmp_path / "test.parquet", _columns(4), FEATURES)
    few = open_dataset(str(tmp_path), train_images=12).train
    assert len(few) == 12 and set(few.labels.tolist()) == {0, 1}
    values = few.images[:, 0, 0, 0].tolist()
    assert [kinds[value] for value in values] == few.labels.tolist()
    assert (values == list(range(12))) is not in_order_of_class
    again = open_dataset(str(tmp_path), train_images=12, decode_train=False).train
    assert isinstance(again.images, Encoded) and np.array_equal(again.images[:], few.images)


@pytest.mark.skipif(not (SHARED / "tiny-imagenet-subset").exists(), reason="shared data are not on this machine")
def test_tiny_imagenet_opens_like_the_hubs() -> None:
    data = open_dataset(str(SHARED / "tiny-imagenet-subset"), image_size=64)
    assert (len(data.train), len(data.test), len(data.class_names)) == (2000, 400, 200)
    assert data.image_shape == (3, 64, 64)
