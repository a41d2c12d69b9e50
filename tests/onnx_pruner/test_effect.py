"""What a rule answers."""

import numpy as np
import pytest

from onnx_shift.onnx_pruner.effect import Linear, Tie


@pytest.mark.parametrize(
    ("padded", "plain_bias", "groups", "folds", "merges"),
    [
        (False, True, 1, True, False),
        (True, True, 1, False, True),
        (True, True, 2, False, False),
        (False, False, 1, False, True),
    ],
)
def test_a_constant_input_moves_into_the_bias_or_is_stood_for(
    padded: bool, plain_bias: bool, groups: int, folds: bool, merges: bool
) -> None:
    kernel = np.ones((groups, 4, 3), bool)
    linear = Linear(0, 1, 2, kernel, input_first=False, padded=padded, plain_bias=plain_bias)
    assert (linear.folds.tolist(), linear.merges, linear.groups) == ([folds] * 3 * groups, merges, groups)


def test_constants_of_whole_steps_alone_move_into_a_quantised_bias() -> None:
    whole = np.array([True, False, True])
    linear = Linear(0, 1, 2, np.ones((1, 4, 3), bool), False, False, plain_weight=False, plain_bias=False, whole=whole)
    assert linear.folds.tolist() == [True, False, True]
    assert not linear.merges


def test_a_tie_of_the_same_channels() -> None:
    tie = Tie.same(1, 3)
    assert (tie.input, tie.output) == (1, 0)
    assert tie.source.tolist() == tie.target.tolist() == [0, 1, 2]
