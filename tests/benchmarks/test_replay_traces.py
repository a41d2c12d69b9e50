"""The published kinds of load, and what is said of policies over all of them."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.replay_traces import _SERVED_BY, LOAD, azure_like, figures_of, known_beforehand, loads
from onnx_shift.runtime.queueing import always, clairvoyant
from onnx_shift.runtime.replay import Timeline
from onnx_shift.runtime.trace import Trace


def test_every_load_brings_requests_and_is_the_same_again() -> None:
    found = {name: trace.arrivals(200.0, np.random.default_rng(0)) for name, trace in loads(4.0).items()}
    assert len(found) == 8
    for name, trace in loads(4.0).items():
        np.testing.assert_array_equal(trace.arrivals(200.0, np.random.default_rng(0)), found[name])
        assert 0.25 * LOAD * 800 <= found[name].size <= 2 * LOAD * 800, name


def test_azure_like_invocations_are_bursty_and_thinned_to_the_load() -> None:
    trace = azure_like(20.0)
    arrived_s = trace.arrivals(500.0, np.random.default_rng(0))
    assert arrived_s.size == pytest.approx(LOAD * 500 * 20, rel=0.05)
    counts = np.histogram(arrived_s, 200, (0.0, 20.0))[0]
    assert counts.var() > 3 * counts.mean()  # a Poisson process has them equal


def runs(**changes: tuple[float, float]) -> dict[str, dict[str, float]]:
    """One load's runs: (in time, accuracy) by name."""
    usual = dict.fromkeys(_SERVED_BY, (0.9, 0.8)) | {"smallest": (1.0, 0.6), "clairvoyant": (1.0, 0.9)}
    found = usual | changes
    return {name: {"within_objective": at, "mean_accuracy_served": accuracy} for name, (at, accuracy) in found.items()}


def test_a_baseline_counts_that_answers_no_less_in_time() -> None:
    found = figures_of({"a": runs(policy=(0.99, 0.85), slack=(0.99, 0.8), qps=(0.9, 0.89))})
    assert found["towards_clairvoyant"] == pytest.approx(0.5)  # slack 0.8, ours 0.85, possible 0.9
    assert found["attainment_least"] == 0.99
    assert figures_of({"a": runs(policy=(0.99, 0.85))})["towards_clairvoyant"] == pytest.approx(25 / 30)  # the smallest


def test_loads_that_nothing_could_serve_set_no_goal() -> None:
    found = figures_of({"a": runs(policy=(0.98, 0.8)), "b": runs(policy=(0.5, 0.8), smallest=(0.6, 0.6))})
    assert (found["attainment_least"], found["loads_possible"]) == (0.98, 1)


def test_a_clairvoyant_chooses_as_often_as_serves_it_best() -> None:
    arrived_s = np.concatenate([np.arange(0.0, 0.5, 0.002), np.arange(0.5, 1.0, 0.02)])  # busy, then quiet
    smallest = always(arrived_s, 0.001, 0)
    timeline = Timeline(
        Trace("half", 0.5, (1.0, 1.0)), ("a", "b"), (0.5, 0.9), (1.0, 4.0), 250.0, 20.0, {"smallest": smallest}
    )
    found = known_beforehand(timeline)
    assert found.within(20.0) >= 0.99 * arrived_s.size
    each_second = clairvoyant(arrived_s, 1.0, (0.001, 0.004), (0.5, 0.9), 20.0)
    assert found.accuracy((0.5, 0.9)) > each_second.accuracy((0.5, 0.9)) == 0.5
