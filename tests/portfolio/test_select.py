"""Which variants are worth shipping, and why the others are not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_shift.portfolio.profile import Latency, Profile, Speedup, Timing, Variant
from onnx_shift.portfolio.select import METRICS, SelectionError, select


def _entry(
    accuracy: float | None, latency: float, size: int, speedup: dict[int, Speedup] | None = None, **more: Any
) -> Variant:
    return Variant(Timing({1: Latency(latency)}, speedup or {}), size, accuracy=accuracy, **more)


def _profile(**variants: Variant) -> Profile:
    return Profile(variants, dense="dense")


PROFILE = _profile(
    dense=_entry(0.95, 10.0, 1000_000),
    half=_entry(0.96, 8.0, 500_000),
    tiny=_entry(0.80, 2.0, 50_000),
    worse=_entry(0.79, 2.5, 60_000),
    twin=_entry(0.8005, 2.02, 51_000),
    slow=_entry(0.97, 12.0, 400_000, speedup={1: Speedup(0.83, 0.7, 0.9)}),
    guess=_entry(0.11, 0.5, 10_000, classes=10, images=1000),
)


def test_every_reason_to_drop_is_told_and_the_rest_stays() -> None:
    found = select(PROFILE, list(PROFILE.variants))
    assert found.kept == ("half", "tiny")
    assert found.dropped["guess"] == "no better than guessing: 11.0% right of 10 classes"
    assert found.dropped["slow"] == "slower than the dense model: 0.83 times as fast, at best 0.90"
    assert found.dropped["dense"] == "half is nowhere worse (96.00%, 8 ms, 500 kB)"
    assert found.dropped["worse"].startswith("tiny is nowhere worse")
    assert found.dropped["twin"] == "near-duplicate of tiny (80.00%, 2 ms, 50 kB)"


def test_one_of_the_dense_model_s_structure_is_never_slower() -> None:
    slow = {1: Speedup(0.83, 0.7, 0.9)}
    for structure, kept in (("a", ("level",)), ("b", ("dense",))):
        profile = _profile(
            dense=_entry(0.95, 10.0, 1000, structure="a"),
            level=_entry(0.96, 12.0, 1000, structure=structure, speedup=slow),
        )
        assert select(profile, ["dense", "level"]).kept == kept


def test_search_efficiency_is_the_share_of_optimal_variants() -> None:
    found = select(PROFILE, list(PROFILE.variants))
    assert found.optimal == ("half", "tiny", "slow")  # neither the guess nor the near-duplicate
    assert found.efficiency == pytest.approx(3 / 7)
    assert found.to_dict()["efficiency"] == 0.4286


def test_keep_all_overrides_every_reason() -> None:
    found = select(PROFILE, list(PROFILE.variants), keep_all=True)
    assert found.kept == tuple(PROFILE.variants)
    assert not found.dropped


def test_keep_all_needs_no_metric_that_was_not_measured() -> None:
    profile = _profile(detector=_entry(None, 1.0, 1))
    found = select(profile, ["detector"], keep_all=True)
    assert found.kept == ("detector",) and found.optimal == ()
    message = (
        "detector: the profile holds no accuracy; profile with data, or choose by what it holds, such as "
        r"metrics=\['latency', 'size'\], or keep_all=True"
    )
    with pytest.raises(SelectionError, match=message):
        select(profile, ["detector"])
    assert select(profile, ["detector"], metrics=["latency", "size"]).optimal == ("detector",)


@pytest.mark.parametrize(("median", "high", "kept"), [(0.90, 0.97, False), (0.90, 1.01, True), (0.97, 0.99, True)])
def test_slower_than_dense_is_slower_in_every_round(median: float, high: float, kept: bool) -> None:
    """Latencies of a busy machine, taken minutes apart, say less than rounds in turn with the dense model."""
    most = _entry(0.95, 20.0, 10**6, speedup={1: Speedup(median, 0.5, high), 16: Speedup(0.1, 0.1, 0.1)})
    profile = _profile(dense=_entry(0.9, 10.0, 10**6), most=most)
    assert ("most" in select(profile, ["dense", "most"]).kept) is kept


def test_networks_of_one_structure_count_once_whatever_the_noise() -> None:
    """The less accurate, the faster by chance, far beyond the tolerance; another structure may well be faster."""
    levels = {f"v{n}": _entry(0.90 + n / 100, 1.0 + n / 5, 1000, structure="a") for n in range(5)}
    levels["other"] = _entry(0.85, 0.9, 1000, structure="b")
    found = select(_profile(**levels), list(levels))
    assert found.kept == ("v4", "other")
    assert found.dropped["v0"] == "v4 is nowhere worse (94.00%, 1.4 ms, 1 kB)"  # the median of all


def test_levels_within_the_tolerances_count_once() -> None:
    """Five levels whose latencies and sizes differ by less than the tolerances: the most accurate stands for all."""
    levels = {f"v{n}": _entry(0.90 + n / 100, 1.0 + n / 1000, 1000 + n) for n in range(5)}
    found = select(_profile(**levels), list(levels))
    assert found.optimal == found.kept == ("v4",)


def test_max_variants_keeps_those_that_lie_apart() -> None:
    ladder = {f"v{n}": _entry(0.9 - n / 50, 9.0 - n, 900_000 - n * 100_000) for n in range(7)}
    found = select(_profile(dense=_entry(0.9, 10.0, 10**6), **ladder), list(ladder), max_variants=3)
    assert found.kept == ("v0", "v3", "v6")
    assert found.dropped["v1"] == "not among the 3 that lie furthest apart"


def test_other_metrics_change_the_choice() -> None:
    found = select(PROFILE, ["dense", "half", "slow"], metrics=["accuracy"])
    assert found.kept == ("half",)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "there is no variant"),
        (["other"], {}, "other: the profile holds no variant of this name"),
        (["half"], {"metrics": ["beauty"]}, "metric beauty: unknown; choose from accuracy"),
        (["half"], {"metrics": ["memory"]}, "half: the profile holds no memory"),
        (["half"], {"max_variants": 0}, "max_variants=0"),
        (["guess"], {}, "no variant is worth keeping"),
        (["half"], {"metrics": []}, "there is no metric to choose by"),
        (
            ["half"],
            {"keep_all": True, "max_variants": 1},
            "keep_all=True keeps every variant: leave out max_variants",
        ),
        (["half"], {"keep_all": True, "metrics": ["beauty"]}, "metric beauty: unknown"),
    ],
)
def test_what_cannot_be_chosen_is_refused(names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select(PROFILE, names, **options)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_prefers_the_better_of_two(metric: str) -> None:
    low, high = (
        Variant(
            Timing({1: Latency(value)}, images_per_second=value, memory_mb=value),
            **dict.fromkeys(("file_bytes", "deflated_bytes", "parameters", "macs"), int(10 * value)),
            **dict.fromkeys(("accuracy", "top5", "switch_ms"), value),
        )
        for value in (0.2, 0.9)
    )
    found = select(Profile({"low": low, "high": high}), metrics=[metric])
    assert found.kept == (("high",) if METRICS[metric].larger_is_better else ("low",))


@given(st.lists(st.tuples(*[st.integers(1, 30)] * 3), min_size=1, max_size=12))
def test_every_dropped_variant_is_replaced_by_one_that_stays(rows: list[tuple[int, int, int]]) -> None:
    variants = {f"v{n}": _entry(a / 100, b / 10, c * 1000) for n, (a, b, c) in enumerate(rows)}
    found = select(Profile(variants))
    costs = np.array([(-a / 100, b / 10, c * 1000) for a, b, c in rows])
    kept = [int(name[1:]) for name in found.kept]
    allowed = np.stack([np.full(len(rows), 0.001), 0.05 * costs[:, 1], 0.03 * costs[:, 2]], axis=1)
    for name in found.dropped:
        n = int(name[1:])
        within = costs[kept] <= costs[n] + 2 * allowed[n] + 1e-9
        assert within.all(axis=1).any()
    for n in kept:
        others = [m for m in kept if m != n]
        assert not ((costs[others] <= costs[n]).all(axis=1) & (costs[others] < costs[n]).any(axis=1)).any()
