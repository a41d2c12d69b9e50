"""Images are decoded when asked for, and cells keep the order that was chosen."""

import numpy as np
import pytest

from onnx_shift.portfolio.images import Cells, DataError, read_images
from tests.portfolio.test_data import _png


def test_cells_are_read_by_row_when_asked_for() -> None:
    asked: list[list[int]] = []

    def read(rows: list[int]) -> list[int]:
        asked.append(rows)
        return [10 * row for row in rows]

    cells = Cells(read, np.arange(6)).select(np.array([5, 2, 3]))
    assert (len(cells), asked) == (3, [])
    assert (cells[np.array([2, 0])], cells[1:]) == ([30, 50], [20, 30])
    assert asked == [[3, 5], [2, 3]]


def test_bytes_and_arrays_are_images_as_well_as_files() -> None:
    png = _png(7, mode="L")
    cells = Cells.of([png, png["bytes"], np.full((8, 8), 7, np.uint8)])
    images = read_images("set", cells, None, 1 << 20)
    assert images.shape == (3, 1, 8, 8) and np.unique(images[:]).tolist() == [7]
    assert read_images("set", cells, 4, 0)[1:].shape == (2, 1, 4, 4)


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(DataError, match="set: image 0 cannot be decoded"):
        read_images("set", Cells.of([b"text"]), None, 1 << 20)
    with pytest.raises(DataError, match="set: holds no images"):
        read_images("set", Cells.of([]), None, 1 << 20)
