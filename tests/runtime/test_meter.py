"""Counting requests."""

import numpy as np
import pytest

from onnx_shift.runtime import Portfolio
from onnx_shift.runtime.controller import Controller
from onnx_shift.runtime.meter import Meter
from tests.runtime.conftest import Alternate, Make


def test_load_counts_requests_when_they_come(portfolio: Portfolio) -> None:
    now, queue = [0.0], [0]
    meter = Meter(lambda: now[0])
    switchable = type("Switchable", (), {"current": (portfolio, portfolio["small"])})()
    controller = Controller(switchable, Alternate(), meter, lambda: queue[0], lambda: now[0])
    meter.begin("first")
    queue[0], now[0] = 4, 1.0
    load = controller.look(switchable)
    assert (load.arrived, load.completed, load.waiting, load.interval_s) == (5, 0, 5, 1.0)
    assert load.busy_s == pytest.approx(1.0)
    meter.end("first")
    meter.end("of one that never began")
    queue[0], now[0] = 4, 3.0
    load = controller.look(switchable)
    assert (load.arrived, load.completed, load.waiting) == (0, 1, 4)
    assert load.latencies_ms == (1000.0,) and load.busy_s == pytest.approx(0.0)


def test_the_first_request_after_a_pause_is_told_from_those_that_follow() -> None:
    now = [5.0]
    meter = Meter(lambda: now[0])

    def request(pause_s: float, took_s: float) -> None:
        now[0] += pause_s
        meter.begin("one")
        now[0] += took_s
        meter.end("one")

    request(0.0, 0.25)  # the very first
    request(0.0005, 0.125)
    request(0.5, 0.25)
    seen = meter.read()
    assert (seen.completed, seen.busy_s, seen.woken, seen.woken_s) == (3, 0.625, 2, 0.5)
    now[0] += 1.0
    meter.begin("waking")
    now[0] += 0.25
    meter.begin("beside it")
    meter.end("beside it")
    meter.end("waking")
    assert meter.read()[:5] == (0, 2, 0.25, 1, 0.25)
    assert meter.read() == (0, 0, 0.0, 0, 0.0, ())


def test_policies_hear_of_requests_alone(make_switcher: Make, images: np.ndarray) -> None:
    class Idle(Alternate):
        interval_s = 60.0

    policy = Idle()
    model = make_switcher(policy=policy)
    binding = model.io_binding()
    binding.bind_cpu_input("input", images)
    binding.bind_output("logits")
    for _ in range(5):
        model.run_with_iobinding(binding)
        model.get_providers()
        model.get_modelmeta()
        assert model.session is not None
    assert model._leases.meter is not None
    assert sum(load.completed for load in policy.seen) + model._leases.meter.read()[1] == 5
