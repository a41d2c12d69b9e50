"""Policies on a device on paper, without waiting: one queue, one server, a fixed time per request and variant."""

from collections.abc import Callable, Sequence

import numpy as np

from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.policy import place_of
from onnx_shift.runtime.portfolio import Variant
from onnx_shift.runtime.queueing import Floats, ServedTrace, finish_times


def always(arrived_s: Floats, service_s: float, variant: int) -> ServedTrace:
    """Return what happens when one variant serves all the time."""
    finished = finish_times(arrived_s, 0.0, service_s)
    return ServedTrace(arrived_s, (finished - arrived_s) * 1e3, np.full(arrived_s.size, variant), ())


def simulate(
    arrived_s: Floats,
    duration_s: float,
    variants: Sequence[Variant],
    service_s: Sequence[float],
    policy: Policy,
    *,
    switch_s: Sequence[float],
    slowness: Callable[[float], float] = lambda time_s: 1.0,
    wake_s: float = 0.0,
) -> ServedTrace:
    """Return what `policy` makes of the requests. A switch takes `switch_s`, by variant, beside the one that serves;
    `slowness` says how many times as long as usual a request takes that begins at a time, and the first after a
    pause takes `wake_s` more.
    """
    active, target, ready_s = len(variants) // 2, None, 0.0
    finished, chosen = np.empty_like(arrived_s), np.zeros(arrived_s.size, np.intp)
    woken_s = np.zeros_like(arrived_s)
    switches: list[tuple[float, int]] = []
    free_s, next_row, looked_s, were_answered, came_before = 0.0, 0, 0.0, 0, 0
    while looked_s < duration_s:
        now = looked_s + policy.interval_s
        busy_s = max(0.0, min(free_s, now) - looked_s)
        while next_row < arrived_s.size and max(free_s, arrived_s[next_row]) < now:
            began_s = max(free_s, float(arrived_s[next_row]))
            if target is not None and began_s >= ready_s:
                active, target = target, None
                switches.append((ready_s, active))
            paused = began_s > free_s + 1e-3
            free_s = began_s + (service_s[active] + paused * wake_s) * slowness(began_s)
            woken_s[next_row] = paused * (free_s - began_s)
            busy_s += min(free_s, now) - began_s
            finished[next_row], chosen[next_row] = free_s, active
            next_row += 1
        if target is not None and now >= ready_s:
            active, target = target, None
            switches.append((ready_s, active))
        came = int(np.searchsorted(arrived_s, now))
        answered = int(np.searchsorted(finished[:next_row], now))
        just = slice(were_answered, answered)
        load = Load(
            time_s=now,
            interval_s=policy.interval_s,
            arrived=came - came_before,
            completed=answered - were_answered,
            waiting=came - answered,
            busy_s=busy_s,
            latencies_ms=tuple(1e3 * (finished[just] - arrived_s[just])),
            active=variants[active],
            variants=tuple(variants),
            woken=int(np.count_nonzero(woken_s[just])),
            woken_s=float(woken_s[just].sum()),
        )
        wanted = place_of(policy.decide(load) if target is None else None, load)
        if wanted != active:
            target, ready_s = wanted, now + switch_s[wanted]
        looked_s, were_answered, came_before = now, answered, came
    while next_row < arrived_s.size:
        free_s = max(free_s, float(arrived_s[next_row])) + service_s[active]
        finished[next_row], chosen[next_row] = free_s, active
        next_row += 1
    return ServedTrace(arrived_s, (finished - arrived_s) * 1e3, chosen, tuple(switches))
