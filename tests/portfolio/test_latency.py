"""Latency by an artificial clock: rounds, speed-ups, noise."""

from collections.abc import Callable

import pytest

from onnx_shift.portfolio.latency import ROUNDS, compare_latency


class Machine:
    """A clock that moves only when a call takes its time, with a factor that drifts or jumps."""

    def __init__(self, factor: Callable[[int], float] = lambda call: 1.0) -> None:
        self.now, self.calls, self.factor, self.order = 0.0, 0, factor, ""

    def call(self, name: str, milliseconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += milliseconds / 1000 * self.factor(self.calls)
            self.calls += 1
            self.order += name

        return run


def test_percentiles_and_speedup_of_steady_calls() -> None:
    machine = Machine()
    calls = {"d": machine.call("d", 4.0), "v": machine.call("v", 1.0)}
    found = compare_latency(calls, "d", seconds=0.5, clock=lambda: machine.now)
    assert found.latency["d"].p50_ms == pytest.approx(4.0)
    assert found.latency["v"].p99_ms == pytest.approx(1.0)
    assert found.speedup["v"].median == pytest.approx(4.0)
    assert found.speedup["d"].median == 1.0
    assert not found.latency["v"].noisy
    assert found.latency["v"].attempts == 1
    assert found.latency["v"].calls == ROUNDS * 33  # half a second over rounds of one millisecond's calls


def test_slow_calls_are_made_few_times() -> None:
    machine = Machine()
    calls = {"d": machine.call("d", 2000.0), "v": machine.call("v", 100.0)}
    found = compare_latency(calls, "d", seconds=1.0, attempts=1, clock=lambda: machine.now)
    assert (found.latency["d"].calls, found.latency["v"].calls) == (5, 10)
    assert found.speedup["v"].median == pytest.approx(20.0)


def test_a_drifting_machine_does_not_change_the_speedup_much() -> None:
    machine = Machine(lambda call: 1 + call / 300)  # several times slower at the end than at the start
    calls = {"d": machine.call("d", 2.0), "v": machine.call("v", 1.0)}
    found = compare_latency(calls, "d", seconds=0.1, attempts=1, clock=lambda: machine.now)
    assert found.speedup["v"].median == pytest.approx(2.0, rel=0.1)
    assert found.latency["v"].noisy


def test_rounds_are_interleaved_and_their_order_turns() -> None:
    machine = Machine()
    calls = {name: machine.call(name, 1.0) for name in "abc"}
    compare_latency(calls, "a", seconds=0.01, attempts=1, clock=lambda: machine.now)
    turns = "".join(name * 2 for name in "abccba")  # one call to warm up and one that counts
    assert machine.order[6 : 6 + len(turns)] == turns


def test_a_noisy_attempt_is_repeated_and_the_calmest_is_returned() -> None:
    first_attempt = 2 + ROUNDS * 2
    machine = Machine(lambda call: 1 + (call // 2 % 2) if call < first_attempt else 1.0)
    found = compare_latency({"d": machine.call("d", 1.0)}, "d", seconds=0.01, attempts=3, clock=lambda: machine.now)
    assert found.latency["d"].attempts == 2
    assert found.latency["d"].p50_ms == pytest.approx(1.0)
    assert not found.latency["d"].noisy


def test_noise_that_stays_is_marked() -> None:
    machine = Machine(lambda call: 1 + (call // 2 % 2))
    found = compare_latency({"d": machine.call("d", 1.0)}, "d", seconds=0.01, attempts=2, clock=lambda: machine.now)
    assert found.latency["d"].noisy
    assert found.latency["d"].spread > 0.3
