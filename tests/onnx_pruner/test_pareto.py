from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_shift.onnx_pruner.pareto import METRICS, SelectionError, select


def _entry(accuracy: float, latency: float, size: int, **more: Any) -> dict[str, Any]:
    return {"accuracy": accuracy, "latency_ms": {"1": {"p50": latency}}, "file_bytes": size, **more}


def _profile(**variants: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "dense": "dense", "variants": variants}


PROFILE = _profile(
    dense=_entry(0.95, 10.0, 1000_000),
    half=_entry(0.96, 8.0, 500_000),
    tiny=_entry(0.80, 2.0, 50_000),
    worse=_entry(0.79, 2.5, 60_000),
    twin=_entry(0.8005, 2.02, 51_000),
    slow=_entry(0.97, 12.0, 400_000),
    guess=_entry(0.11, 0.5, 10_000, classes=10, images=1000),
)


def test_every_reason_to_drop_is_told_and_the_rest_stays() -> None:
    found = select(PROFILE, list(PROFILE["variants"]))
    assert found.kept == ("half", "tiny")
    assert found.dropped["guess"] == "no better than guessing: 11.0% right of 10 classes"
    assert found.dropped["slow"] == "slower than the dense model: 12 ms against 10 ms"
    assert found.dropped["dense"] == "half is nowhere worse (96.00%, 8 ms, 500 kB)"
    assert found.dropped["worse"].startswith("tiny is nowhere worse")
    assert found.dropped["twin"] == "near-duplicate of tiny (80.00%, 2 ms, 50 kB)"


def test_search_efficiency_is_the_share_of_optimal_variants() -> None:
    found = select(PROFILE, list(PROFILE["variants"]))
    assert found.optimal == ("half", "tiny", "twin", "slow", "guess")
    assert found.efficiency == pytest.approx(5 / 7)
    assert found.to_dict()["efficiency"] == 0.7143


def test_keep_all_overrides_every_reason() -> None:
    found = select(PROFILE, list(PROFILE["variants"]), keep_all=True)
    assert found.kept == tuple(PROFILE["variants"])
    assert not found.dropped


def test_the_baseline_with_fused_batch_norm_decides_what_is_slow() -> None:
    profile = PROFILE | {"baseline": {"latency_ms": {"1": {"p50": 7.0}}}}
    found = select(profile, ["half", "tiny"])
    assert found.dropped == {"half": "slower than the dense model: 8 ms against 7 ms"}


def test_max_variants_keeps_those_that_lie_apart() -> None:
    ladder = {f"v{n}": _entry(0.9 - n / 50, 9.0 - n, 900_000 - n * 100_000) for n in range(7)}
    found = select(_profile(dense=_entry(0.9, 10.0, 10**6), **ladder), list(ladder), max_variants=3)
    assert found.kept == ("v0", "v3", "v6")
    assert found.dropped["v1"] == "more than --max-variants 3"


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
        (["half"], {"max_variants": 0}, "--max-variants 0"),
        (["guess"], {}, "no variant is worth keeping"),
    ],
)
def test_what_cannot_be_chosen_is_refused(names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select(PROFILE, names, **options)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_prefers_the_better_of_two(metric: str) -> None:
    keys = {"size": "file_bytes", "deflated": "deflated_bytes", "memory": "memory_mb", "switch": "switch_ms"}
    low, high = (
        {"latency_ms": {"1": {"p50": value}}, keys.get(metric, metric): value} for value in (0.2, 0.9)
    )
    found = select({"variants": {"low": low, "high": high}}, ["low", "high"], metrics=[metric])
    assert found.kept == (("high",) if METRICS[metric].larger_is_better else ("low",))


@given(st.lists(st.tuples(*[st.integers(1, 30)] * 3), min_size=1, max_size=12))
def test_every_dropped_variant_is_replaced_by_one_that_stays(rows: list[tuple[int, int, int]]) -> None:
    variants = {f"v{n}": _entry(a / 100, b / 10, c * 1000) for n, (a, b, c) in enumerate(rows)}
    found = select({"variants": variants}, list(variants))
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
