"""What each variant serves, learnt and guessed."""

from dataclasses import replace

import numpy as np
import pytest

from onnx_shift.runtime.capacity import Capacities
from onnx_shift.runtime.portfolio import Variant
from tests.runtime.loads import VARIANTS, load


def test_capacities_are_learnt_and_guessed() -> None:
    capacities = Capacities()
    assert capacities.of(VARIANTS[1], VARIANTS[1]) == float("inf")
    for step in range(40):
        capacities.learn(load(step * 0.05, completed=5, busy_s=0.025))
    assert capacities.of(VARIANTS[1], VARIANTS[1]) == pytest.approx(200, rel=0.02)
    assert capacities.of(VARIANTS[2], VARIANTS[1]) == pytest.approx(200 / np.sqrt(2), rel=0.02)
    by_macs = Variant("x", 1, 1, 0, "", {"macs": 10}), Variant("medium", 1, 1, 0, "", {"macs": 40})
    assert capacities.of(*by_macs) == pytest.approx(800, rel=0.02)
    latency = [{"macs": 1, "latency_ms": {"1": {"p50": value}}} for value in (1.0, 2.0)]
    by_latency = Variant("x", 1, 1, 0, "", latency[0]), Variant("medium", 1, 1, 0, "", latency[1])
    assert capacities.of(*by_latency) == pytest.approx(400, rel=0.02)


def test_the_first_request_after_a_pause_counts_little() -> None:
    capacities = Capacities()
    mixed = replace(load(0.0, completed=5, busy_s=0.030), woken=1, woken_s=0.010)  # 10 ms, then 5 ms each
    for _ in range(40):
        capacities.learn(mixed)
    assert capacities.of(VARIANTS[1], VARIANTS[1]) == pytest.approx(200, rel=0.03)
    alone = replace(load(0.0, completed=1, busy_s=0.010), woken=1, woken_s=0.010)
    for _ in range(4000):
        capacities.learn(alone)  # where there are no others, it is all there is to go by
    assert capacities.of(VARIANTS[1], VARIANTS[1]) == pytest.approx(100, rel=0.03)
