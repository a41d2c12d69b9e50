"""Test images for the accuracy, and what is refused before anything is measured."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

from onnx_shift.portfolio.evaluation import evaluation
from tests.onnx_shift.models import digits_network, free_axes, refusal, shift


def _images(path: Path, labels: list[Any], size: int = 8) -> Path:
    """A parquet file of grey images, each as bright as its number."""
    import datasets

    cells = []
    for number in range(len(labels)):
        buffer = io.BytesIO()
        Image.new("L", (size, size), number).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    datasets.Dataset.from_dict({"image": cells, "label": labels}).to_parquet(str(path))
    return path


def _two_inputs(path: Path) -> Path:
    text = (
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,1,8,8] a, float[N,1,8,8] b) => (float[N,64] y) '
        "{ s = Add(a, b)\n y = Flatten(s) }"
    )
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_what_profile_would_stumble_over_is_refused_beforehand(models: list[Path], tmp_path: Path) -> None:
    dense, small = models
    other = shutil.copy(small, tmp_path / "small.onnx")
    smaller = shutil.copy(small, tmp_path / "smaller.onnx")
    assert refusal("profile", smaller) == (
        f"{smaller}: a variant cannot be called 'smaller', which switch() takes for a direction"
    )
    for absent in (other, tmp_path / "none" / "small.onnx"):
        assert refusal("profile", dense, small, "--dense", absent) == (
            f"--dense {absent}: is none of the models to profile"
        )
    free = free_axes(tmp_path / "free.onnx")
    assert refusal("profile", free).startswith(f"{free}: input a: axis 1 of (N,C) is free")
    assert refusal("profile", free).endswith("--shape")


def test_a_model_that_does_not_run_is_refused_beforehand(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,H,H] x) => (float[N,12] y)'
        " <int64[2] to = {-1, 12}> { y = Reshape(x, to) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fits.onnx")
    done = shift("profile", tmp_path / "fits.onnx", "--shape", "x=1,3,5,5")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'fits.onnx'}: onnxruntime does not run it on x of shape (1, 3, 5, 5)"
    )
    assert done.stderr.endswith("; see --shape\n")


def test_data_that_do_not_fit_the_model_are_refused_beforehand(models: list[Path], tmp_path: Path) -> None:
    two = _two_inputs(tmp_path / "two.onnx")
    assert refusal("profile", two, "--data", "digits") == (
        f"--data digits: {two}: has 2 inputs (a, b), images are but one"
    )
    large = _images(tmp_path / "large.parquet", [0, 1] * 5, size=9)
    assert refusal("profile", models[1], "--data", large).startswith(
        f"--data {large}: {models[1]}: does not take images of 1×9×9 as "
    )
    twenty = _images(tmp_path / "twenty.parquet", list(range(20)))
    assert refusal("profile", models[1], "--data", twenty) == (
        f"--data {twenty}: {models[1]}: tells 10 classes apart, images are labelled up to 19"
    )
    named = digits_network(tmp_path / "named.onnx", 4, class_names=json.dumps([*"abcdefghij"]))
    strange = _images(tmp_path / "strange.parquet", ["a", "z"] * 5)
    assert refusal("profile", named, "--data", strange) == (
        f"{strange}: its class z is none of the classes that {named} names"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "0.5", "--std", "0"], "--std 0: must be above 0 and finite"),
        (["--mean", "nan", "--std", "1"], "--mean nan: must be finite"),
        (["--mean", "0.5,0.5", "--std", "1"], "--mean and --std belong together: 2 numbers and 1"),
        (["--mean", "0.5,0.5,0.5", "--std", "1,1,1"], "have 3 numbers, the images of digits 1 channel"),
        (["--image-size", "16"], "digits: are built in, 8x8 pixels: --image-size"),
        (["--image-column", "x"], "digits: are built in, 8x8 pixels: --image-size"),
    ],
)
def test_options_of_the_images_are_checked(models: list[Path], options: list[str], message: str) -> None:
    assert message in refusal("profile", models[1], "--data", "digits", *options)


@pytest.mark.parametrize("content", [b"no parquet", b""])
def test_a_broken_data_set_is_one_line_on_stderr(models: list[Path], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.txt").write_bytes(content)
    done = shift("profile", models[1], "--data", tmp_path / "data.txt")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'data.txt'}: cannot be opened as a data set")


def _labels(data: Path, *models: Path) -> list[list[int]]:
    found = evaluation(str(data), models).batches
    return [[int(label) for _, labels in found[model]() for label in labels] for model in models]


def test_the_only_split_is_all_test_images_unless_train_had_it(models: list[Path], tmp_path: Path) -> None:
    plain, trained = models[1], digits_network(tmp_path / "trained.onnx", 4, recipe_hash="abc")
    (tmp_path / "photos").mkdir()
    test = _images(tmp_path / "photos" / "test.parquet", [0, 1] * 10)
    other = _images(tmp_path / "photos" / "other.parquet", [0, 1] * 10)
    counts = {
        (data.stem, model.stem): len(_labels(data, model)[0]) for data in (test, other) for model in (plain, trained)
    }
    assert counts == {
        ("test", "small"): 20, ("other", "small"): 20, ("test", "trained"): 20, ("other", "trained"): 4,
    }  # fmt: skip
    assert evaluation(str(test), [plain]).note == f"{test} has one split: all 20 images are test images"
    assert "accuracy is that of the 4 images which train holds out" in (evaluation(str(other), [trained]).note or "")


def test_classes_are_found_by_name_and_images_normalised_for_each_model(tmp_path: Path) -> None:
    def normalised(mean: float, std: float) -> str:
        return json.dumps({"mean": [mean], "std": [std]})

    names = [*"jihgfedcba"]
    one = digits_network(tmp_path / "one.onnx", 4, normalisation=normalised(0, 1), class_names=json.dumps(names))
    two = digits_network(tmp_path / "two.onnx", 4, normalisation=normalised(0.5, 0.1))
    data = _images(tmp_path / "test.parquet", ["a", "b", "c"])
    assert sorted(_labels(data, one)[0]) == [7, 8, 9]
    assert sorted(_labels(data, two)[0]) == [0, 1, 2]
    found = evaluation(str(data), [one, two]).batches
    pixels = [np.sort(np.concatenate([images for images, _ in found[m]()])[:, 0, 0, 0]) for m in (one, two)]
    assert np.allclose(pixels[0], np.array([0, 1, 2]) / 255)
    assert np.allclose(pixels[1], (pixels[0] - 0.5) / 0.1, atol=1e-5)


def test_columns_of_the_images_can_be_named(models: list[Path], tmp_path: Path) -> None:
    import datasets

    path = _images(tmp_path / "test.parquet", [0, 1, 2])
    table = datasets.Dataset.from_parquet(str(path)).rename_column("label", "a").add_column("b", [5, 6, 7])
    table.to_parquet(str(path))
    assert "name one with --label-column" in refusal("profile", models[1], "--data", path)
    found = evaluation(str(path), models, image_column="image", label_column="b")
    assert sum(len(labels) for _, labels in found.batches[models[0]]()) == 3
