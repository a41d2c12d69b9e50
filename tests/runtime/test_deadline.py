"""The policy that uses all of the objective, on paper."""

import numpy as np
import pytest

from onnx_shift.runtime.baselines import SlackBased
from onnx_shift.runtime.deadline import Deadline
from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.portfolio import Variant
from onnx_shift.runtime.queueing import always, clairvoyant, simulate
from onnx_shift.runtime.trace import random_trace

MS, ACCURACIES = (3.24, 3.65, 5.54, 6.7, 7.78), (0.8223, 0.853, 0.8692, 0.8743, 0.8804)  # as a CIFAR-10 portfolio's
VARIANTS = tuple(
    Variant(str(index), index + 1, index + 1, 0, "", {"accuracy": accuracy, "latency_ms": {"1": {"p50": latency}}})
    for index, (latency, accuracy) in enumerate(zip(MS, ACCURACIES, strict=True))
)


def look(time_s: float, *, waiting: int, arrived: int = 0, active: int = 4) -> Load:
    return Load(time_s, 0.01, arrived, 10, waiting, 10 * MS[active] / 1e3, (), VARIANTS[active], VARIANTS)


@pytest.mark.parametrize(("waiting", "chosen"), [(1, None), (10, None), (12, "3"), (14, "2"), (20, "1"), (200, "0")])
def test_the_last_that_waits_has_to_be_in_time(waiting: int, chosen: str | None) -> None:
    policy = Deadline(p95_ms=100)
    for step in range(20):  # learns what the largest serves
        policy.decide(look(step / 100, waiting=1, arrived=1))
    assert policy.decide(look(1.0, waiting=waiting, arrived=waiting)) == chosen


def test_what_has_waited_leaves_less_time() -> None:
    policy = Deadline(p95_ms=100)
    for step in range(20):
        policy.decide(look(step / 100, waiting=1, arrived=1))
    policy.decide(look(1.0, waiting=9, arrived=9))
    assert policy.decide(look(1.01, waiting=8)) is None  # waited 20 ms, and the eighth takes 60
    assert policy.decide(look(1.03, waiting=8)) == "3"  # waited 40, and by this one it takes 52
    assert policy.decide(look(1.09, waiting=8)) == "0"  # too late by any


@pytest.mark.parametrize(("cv", "seed"), [(1.0, 5), (2.0, 2), (4.0, 3)])
def test_bursts_cost_less_accuracy_than_by_slack_at_no_less_attainment(cv: float, seed: int) -> None:
    service_s = [latency / 1e3 for latency in MS]
    arrived_s = random_trace("bursty", 20.0, cv=cv, seed=seed).arrivals(1 / service_s[-1], np.random.default_rng(seed))

    def serve(policy: Policy) -> tuple[float, float]:
        run = simulate(arrived_s, 20.0, VARIANTS, service_s, policy, switch_s=[0.008] * 5)
        return run.within(100.0) / arrived_s.size, run.accuracy(ACCURACIES)

    (attained, accuracy), (by_slack, slack) = serve(Deadline(p95_ms=100)), serve(SlackBased(p95_ms=100))
    known = clairvoyant(arrived_s, 0.5, service_s, ACCURACIES, 100.0).accuracy(ACCURACIES)
    assert always(arrived_s, service_s[0], 0).within(100.0) >= 0.98 * arrived_s.size
    assert attained >= 0.97 and attained >= by_slack - 1e-3
    assert accuracy - slack >= 0.1 * (known - slack) and accuracy > slack


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Deadline: share=-1, where a number above 0 is needed"):
        Deadline(share=-1)
