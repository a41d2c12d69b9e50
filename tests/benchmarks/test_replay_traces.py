"""The published kinds of load, and what is said of policies over all of them."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.replay_traces import _SERVED_BY, LOAD, azure_like, figures_of, loads


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
