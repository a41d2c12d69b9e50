"""A device on paper."""

import numpy as np
import pytest

from onnx_shift.runtime.queueing import ServedTrace, always, clairvoyant
from onnx_shift.runtime.trace import builtin_trace


def test_a_clairvoyant_is_no_worse_than_always_one() -> None:
    arrived_s = builtin_trace("step", 20.0).arrivals(100, np.random.default_rng(1))
    best = clairvoyant(arrived_s, 1.0, [0.004, 0.01], [0.5, 0.9], 100.0)
    smallest = always(arrived_s, 0.004, 0)
    assert best.within(100.0) >= 0.99 * smallest.within(100.0)
    assert best.accuracy([0.5, 0.9]) > smallest.accuracy([0.5, 0.9]) == 0.5
    assert [index for _, index in best.switches] == [0, 1]


def test_a_run_counts_what_failed_as_wrong_and_late() -> None:
    run = ServedTrace(np.zeros(4), np.array([1.0, 5.0, 1.0, 1.0]), np.array([0, 1, -1, 1]), ())
    assert run.within(2.0) == 2
    assert run.accuracy([0.5, 0.9]) == pytest.approx((0.5 + 0.9 + 0.9) / 4)
