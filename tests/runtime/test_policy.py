"""Policies: when to switch, and to which variant."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.policy import LatencyObjective, MemoryBudget, QueriesPerSecond, Together
from onnx_shift.runtime.portfolio import Variant
from onnx_shift.runtime.queueing import ServedTrace, always, clairvoyant, simulate
from onnx_shift.runtime.trace import SHAPES, builtin_trace
from tests.runtime.loads import VARIANTS, load


def settle(policy: Policy, active: int, *, arrived: int, completed: int = 5) -> float:
    """Let the policy watch an active variant that serves 100 requests per second, a second long."""
    for step in range(20):
        policy.decide(load(step * 0.05, arrived=arrived, active=active, completed=completed))
    return 1.0


@pytest.mark.parametrize("make", [QueriesPerSecond, LatencyObjective])
def test_a_growing_queue_leads_to_a_smaller_variant(make: Callable[[], Policy]) -> None:
    policy = make()
    now = settle(policy, 2, arrived=5)
    assert policy.decide(load(now, arrived=10, waiting=30, active=2)) in ("smaller", "small", "medium")


@pytest.mark.parametrize("make", [QueriesPerSecond, LatencyObjective])
def test_the_smallest_variant_stays_whatever_comes(make: Callable[[], Policy]) -> None:
    policy = make()
    now = settle(policy, 0, arrived=5)
    assert policy.decide(load(now, arrived=100, waiting=1000, active=0)) is None


@pytest.mark.parametrize("make", [QueriesPerSecond, LatencyObjective])
def test_idleness_is_not_taken_for_overload(make: Callable[[], Policy]) -> None:
    policy = make()
    settle(policy, 1, arrived=5)
    steps = [policy.decide(load(1 + step * 0.05, completed=0, busy_s=0.0)) for step in range(40)]
    assert set(steps) <= {None, "larger", "large"} and steps[-1] is not None


@pytest.mark.parametrize("make", [QueriesPerSecond, LatencyObjective])
def test_a_load_that_the_larger_could_not_carry_changes_nothing(make: Callable[[], Policy]) -> None:
    policy = make()
    settle(policy, 1, arrived=4)  # 80 of 100 per second; the large one promises 100 / sqrt(2)
    assert {policy.decide(load(1 + step * 0.05, arrived=4, completed=4, busy_s=0.04)) for step in range(40)} == {None}


def test_nothing_goes_up_during_the_cool_down() -> None:
    policy = QueriesPerSecond(cooldown_s=1.0)
    now = settle(policy, 2, arrived=5)
    assert policy.decide(load(now, arrived=10, waiting=30, active=2)) == "smaller"
    idle = [policy.decide(load(now + step * 0.05, completed=0, busy_s=0.0)) for step in range(1, 40)]
    assert set(idle[:19]) == {None} and "larger" in idle[19:]


def test_the_paper_s_policy_moves_to_neighbours_and_the_other_jumps() -> None:
    paper, objective = QueriesPerSecond(), LatencyObjective()
    for policy in (paper, objective):
        settle(policy, 2, arrived=5)
    flood = load(1.0, arrived=15, waiting=40, active=2)
    assert paper.decide(flood) == "smaller"
    assert objective.decide(flood) == "small"


def test_a_variant_that_is_too_slow_by_itself_is_left_and_avoided() -> None:
    policy = LatencyObjective(p95_ms=50.0, avoid_s=5.0)

    def slow(time_s: float, active: int) -> Load:
        latency_ms = 60.0 if active == 2 else 20.0
        return Load(time_s, 0.05, 1, 1, 0, 0.01, (latency_ms,), VARIANTS[active], VARIANTS)

    steps = [policy.decide(slow(step * 0.05, 2)) for step in range(25)]
    assert steps[:19] == [None] * 19 and "medium" in steps
    later = [policy.decide(slow(1.3 + step * 0.05, 1)) for step in range(140)]
    assert set(later[:90]) == {None} and later[-1] == "large"


def test_what_took_long_for_waiting_does_not_count_as_slow() -> None:
    policy = LatencyObjective(p95_ms=50.0)
    for step in range(60):  # every third look, a queue has been answered
        waiting, latencies = (9, ()) if step % 3 == 0 else (0, (80.0,) * 9 if step % 3 == 1 else (20.0,))
        policy.decide(Load(step * 0.05, 0.05, 3, 3, waiting, 0.01, latencies, VARIANTS[2], VARIANTS))
    idle = (Load(3 + step * 0.05, 0.05, 1, 1, 0, 0.01, (), VARIANTS[1], VARIANTS) for step in range(40))
    assert "large" in {policy.decide(look) for look in idle}


def test_the_objective_is_kept_by_the_most_accurate_not_the_largest() -> None:
    stated = [
        Variant(name, size, size, 0, "", {"accuracy": a})
        for name, size, a in (("s", 1, 0.8), ("m", 2, 0.9), ("l", 4, 0.9))
    ]
    policy = LatencyObjective()

    def choices(active: int) -> set[str | None]:
        looks = (Load(0.05 * i, 0.05, 1, 1, 0, 0.01, (9.0,), stated[active], tuple(stated)) for i in range(1, 40))
        return {policy.decide(look) for look in looks}

    assert "m" in choices(0) and "l" not in choices(0)
    assert choices(1) == {None}


@pytest.mark.parametrize("free, step", [(999, "smaller"), (1000, None), (1440, None), (1441, "larger")])
def test_a_memory_budget(free: int, step: str | None) -> None:
    policy = MemoryBudget(1000, free_bytes=lambda: free)
    assert policy.decide(load(0.0)) == step
    assert MemoryBudget(1000, free_bytes=lambda: 10**9).decide(load(0.0, active=2)) is None


class Says:
    interval_s = 0.5

    def __init__(self, step: str | Variant | None) -> None:
        self.step = step

    def decide(self, load: Load) -> str | Variant | None:
        return self.step


@pytest.mark.parametrize(
    "steps, step",
    [
        (("larger", "larger"), "large"),
        (("larger", None), None),
        (("smaller", "larger"), "small"),
        ((None, "smaller"), "small"),
        ((None, None), None),
        (("small", None), "small"),
        (("large", "larger"), "large"),
        (("large", "medium"), None),
    ],
)
def test_policies_together(steps: Sequence[str | None], step: str | None) -> None:
    policy = Together([*map(Says, steps), MemoryBudget(0, interval_s=9.0, free_bytes=lambda: 10**9)])
    assert policy.decide(load(0.0)) == step and policy.interval_s == 0.5


def test_a_policy_that_names_variants_is_heard_beside_another() -> None:
    objective = LatencyObjective(p95_ms=100)
    together = Together([objective, MemoryBudget(0, free_bytes=lambda: 10**9)])
    now = settle(together, 2, arrived=5)
    answers = [together.decide(load(now + 0.05 * step, arrived=40, waiting=40, active=2)) for step in range(4)]
    assert "small" in answers


def test_no_time_between_two_looks_is_no_division_by_nothing() -> None:
    standing = replace(load(1.0, arrived=5), interval_s=0.0)
    assert QueriesPerSecond().decide(standing) is None


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LatencyObjective(p95_ms=0), "LatencyObjective: p95_ms=0, where a number above 0 is needed"),
        (lambda: LatencyObjective(p95_ms="50"), "LatencyObjective: p95_ms='50', where a number above 0"),
        (lambda: QueriesPerSecond(high=float("nan")), "QueriesPerSecond: high=nan, where a number above 0"),
        (lambda: MemoryBudget("64MB"), "MemoryBudget: keep_free_bytes='64MB', where a number from 0 on"),
        (lambda: MemoryBudget(-1), "MemoryBudget: keep_free_bytes=-1, where a number from 0 on"),
        (lambda: MemoryBudget(0, interval_s=0), "MemoryBudget: interval_s=0, where a number above 0"),
    ],
)
def test_a_field_that_is_no_number_it_could_be_is_named(make: Callable[[], Policy], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    assert MemoryBudget(np.int64(1000), interval_s=np.float32(2)).keep_free_bytes == 1000


def test_together_hears_variants_and_refuses_what_is_none() -> None:
    assert Together([Says(VARIANTS[0]), Says(None)]).decide(load(0.0)) == "small"
    with pytest.raises(SwitchError, match="no variant 'huge'; there are: small, medium, large"):
        Together([Says("huge")]).decide(load(0.0))


DEVICES = {
    "wide": ([0.6, 2.0, 4.5, 8.0], [0.90, 0.92, 0.925, 0.93]),
    "narrow": ([3.0, 3.3, 4.0, 5.0], [0.90, 0.92, 0.925, 0.93]),
    "two": ([3.0, 5.0], [0.90, 0.93]),
    "slow": ([30.0, 60.0, 100.0], [0.70, 0.75, 0.78]),
    "fast": ([0.1, 0.2, 0.5, 1.0], [0.90, 0.91, 0.92, 0.93]),
}


@pytest.mark.parametrize("trace", SHAPES)
@pytest.mark.parametrize("device", DEVICES)
def test_the_objective_is_kept_and_the_accuracy_gained(device: str, trace: str) -> None:
    """On paper: every built-in trace, five devices of one server each, 600 requests or more."""
    service_ms, accuracies = DEVICES[device]
    service_s = [value / 1e3 for value in service_ms]
    objective_ms = max(100.0, 10 * service_ms[-1])
    duration_s = max(30.0, 1000 * service_s[-1])
    shape = builtin_trace(trace, duration_s)
    arrived_s = shape.arrivals(1 / service_s[-1], np.random.default_rng(0))
    variants = [
        Variant(str(index), index + 1, index + 1, 0, "", {"latency_ms": {"1": {"p50": value}}})
        for index, value in enumerate(service_ms)
    ]
    switch_s = [0.01 + 0.3 * (index + 1) ** 2 / len(variants) ** 2 for index in range(len(variants))]
    policy = LatencyObjective(p95_ms=objective_ms)
    run = simulate(arrived_s, duration_s, variants, service_s, policy, switch_s=switch_s)
    smallest = always(arrived_s, service_s[0], 0)
    best = clairvoyant(arrived_s, max(1.0, 100 * service_s[-1]), service_s, accuracies, objective_ms)
    assert run.within(objective_ms) >= 0.95 * smallest.within(objective_ms)
    gained, possible = (one.accuracy(accuracies) - accuracies[0] for one in (run, best))
    assert gained >= 0.8 * possible > 0


@pytest.mark.parametrize("slow_s", [0.1, 0.4])
@pytest.mark.parametrize("trace", SHAPES)
def test_a_device_that_others_use_too_is_not_taken_for_slow_variants(trace: str, slow_s: float) -> None:
    """Every three seconds or so all takes twice as long for a while: no variant is given up for that."""
    variants = [
        Variant(name, 1, 1, 0, "", {"latency_ms": {"1": {"p50": latency}}}) for name, latency in (("s", 3), ("l", 5))
    ]
    times = np.cumsum(np.random.default_rng(7).exponential(3.0, 20))

    def slowness(time_s: float) -> float:
        return 2.0 if ((times <= time_s) & (time_s < times + slow_s)).any() else 1.0

    arrived_s = builtin_trace(trace, 30.0).arrivals(180, np.random.default_rng(0))

    def serve(policy: Policy) -> ServedTrace:
        return simulate(arrived_s, 30.0, variants, [0.003, 0.005], policy, switch_s=[0.02, 0.02], slowness=slowness)

    run, smallest = serve(LatencyObjective()), serve(Says(variants[0]))
    assert run.within(100.0) >= 0.95 * smallest.within(100.0)
    assert np.mean(run.variant) > 0.25


def test_what_a_device_takes_to_wake_is_not_taken_for_what_it_serves() -> None:
    """After pauses small networks take longer by half, yet at a high load there are no pauses."""
    accuracies, service_s = [0.85, 0.88], [0.004, 0.009]
    variants = [
        Variant(name, 1, 1, 0, "", {"latency_ms": {"1": {"p50": 1e3 * time_s}}})
        for name, time_s in zip("sl", service_s, strict=True)
    ]
    gains = []
    for seed in range(8):
        arrived_s = builtin_trace("ramp", 15.0).arrivals(1 / service_s[-1], np.random.default_rng(seed))
        run = simulate(arrived_s, 15.0, variants, service_s, LatencyObjective(), switch_s=[0.02, 0.02], wake_s=0.002)
        assert run.within(100.0) >= 0.95 * always(arrived_s, service_s[0], 0).within(100.0)
        best = clairvoyant(arrived_s, 1.0, service_s, accuracies, 100.0)
        gained, possible = (one.accuracy(accuracies) - accuracies[0] for one in (run, best))
        gains.append(gained / possible)
    assert np.mean(gains) > 1.05  # of one that changes once a second


def test_who_ranks_by_claimed_accuracies_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def seen(time_s: float, *claims: str) -> Load:
        variants = tuple(replace(v, metadata={"accuracy": 0.9, "accuracy_claimed": v.name in claims}) for v in VARIANTS)
        return replace(load(time_s), variants=variants, active=variants[1])

    policy = LatencyObjective()
    for step in range(3):
        policy.decide(seen(step * 0.05, "small"))
    said = "variants are ranked by accuracies that are claimed, not measured: small"
    assert caplog.messages == [said]
    policy.decide(seen(1.0))
    assert caplog.messages == [said]
