"""Scales per channel: what one scale for the tensor would hide, and what no scale may be held to."""

import numpy as np
import pytest

from onnx_shift.onnx_pruner.verification.difference import excesses, is_float, measure, rounding_unit

UNIT = 2.0**-23


def mixed(axis: int, change: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in pixels beside scores of 0 to 1 along an axis; the scores of the second differ by `change`."""
    values = np.random.default_rng(0).random((24, 30)).astype(np.float32)
    values[:4] *= 640
    other = values.copy()
    other[9] += change
    return np.moveaxis(values, 0, axis), np.moveaxis(other, 0, axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_difference_is_held_to_the_scale_of_its_channel_whichever_axis_that_is(axis: int) -> None:
    def found(change: float) -> float:
        return excesses([measure(*mixed(axis, change))], 1e-4, 4 * UNIT)[0].ratio

    assert found(0) == 0
    assert found(1e-5) < 1
    assert 50 < found(0.06) < 1000
    assert 0.06 / 640 < 1e-4  # one scale for the tensor hides it


def test_a_number_that_happens_to_be_small_is_not_held_to_that() -> None:
    usual, small = np.asarray([5.0, 3.0], np.float32), np.asarray([5.0, 1e-6], np.float32)
    near = small + np.asarray([0, 1e-5], np.float32)
    assert excesses([measure(small, near)], 1e-4, 4 * UNIT)[0].ratio > 1
    assert excesses([measure(usual, usual), measure(small, near)], 1e-4, 4 * UNIT)[1].ratio < 1


def test_a_channel_of_zeros_is_held_to_rounding_at_the_tensors_scale() -> None:
    values = np.asarray([[8.0, 0.0]], np.float32)
    assert excesses([measure(values, values + np.asarray([[0, 2e-6]], np.float32))], 1e-4, 4 * UNIT)[0].ratio < 1
    assert excesses([measure(values, values + np.asarray([[0, 1e-4]], np.float32))], 1e-4, 4 * UNIT)[0].ratio > 1


def test_what_the_original_varies_is_allowed_in_that_channel_alone() -> None:
    x, y = mixed(0, 0.06)
    varied = x.copy()
    varied[0] += 40  # a box, not the score
    assert excesses([measure(x, y)], 1e-4, 4 * UNIT, [[measure(x, varied)]], 10)[0].ratio > 1
    varied[9] += 0.01
    assert excesses([measure(x, y)], 1e-4, 4 * UNIT, [[measure(x, varied)]], 10)[0].ratio < 1


def test_an_axis_whose_size_changes_holds_no_channels() -> None:
    x = np.asarray([[1000.0, 1.0, 1.0]], np.float32)
    y = x + np.asarray([[0, 0.01, 0]], np.float32)
    wide = np.ones((1, 5), np.float32) * 1000
    assert excesses([measure(x, y)], 1e-4, 4 * UNIT)[0].ratio > 1
    assert excesses([measure(x, y), measure(wide, wide)], 1e-4, 4 * UNIT)[0].ratio < 1


def test_whole_numbers_count_by_their_share_and_shapes_have_to_agree() -> None:
    x = np.arange(1000)
    y = x.copy()
    y[:2] = -1
    assert measure(x, y).difference == pytest.approx(0.002)
    assert measure(x, x[1:]).difference == np.inf
    assert measure(x, x[1:]).reshaped
    assert measure(np.float32([1, np.nan]), np.float32([1, 2])).difference == np.inf


def test_types_that_numpy_lacks_are_floats_with_a_rounding_unit() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert is_float(np.zeros(1, ml_dtypes.bfloat16))
    assert not is_float(np.zeros(1, ml_dtypes.int4))
    assert [rounding_unit(np.zeros(1, kind)) for kind in (np.float32, ml_dtypes.bfloat16, np.int8)] == [UNIT, 2**-7, 0]
