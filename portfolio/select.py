"""Choose the variants worth shipping (the paper's portfolio post-processor): Pareto-optimal, distinct, not slow.

A variant is dropped for the first of these reasons that holds, and the reason is kept in words:
it classifies no better than guessing; it is slower than the dense model; another is at least as good in every
metric and better in one (Pareto); another is as good in every metric within its tolerance (near-duplicate).
Where more than `max_variants` remain, those stay that lie furthest apart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.profile import Profile, Variant


@dataclass(frozen=True)
class Metric:
    """How to read one metric of a variant, and when two of its values count as the same.

    `larger_is_better` turns the comparison; `tolerance` is a difference where `absolute`, else a share. By a metric of
    the `structure`, networks that differ in nothing but the values of their weights are equal, whatever was measured.
    """

    read: Callable[[Variant], float | None]
    show: Callable[[float], str]
    tolerance: float
    absolute: bool = False
    larger_is_better: bool = False
    structure: bool = False


def _bytes(value: float) -> str:
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(lambda one: one.accuracy, "{:.2%}".format, 0.001, absolute=True, larger_is_better=True),
    "top5": Metric(lambda one: one.top5, "{:.2%}".format, 0.001, absolute=True, larger_is_better=True),
    "latency": Metric(lambda one: one.timing.median_ms, "{:.3g} ms".format, 0.05, structure=True),
    "throughput": Metric(
        lambda one: one.timing.images_per_second,
        "{:.4g} images/s".format,
        0.03,
        larger_is_better=True,
        structure=True,
    ),
    "size": Metric(lambda one: one.file_bytes, _bytes, 0.03),
    "deflated": Metric(lambda one: one.deflated_bytes, _bytes, 0.03),
    "parameters": Metric(lambda one: one.parameters, "{:,.0f} parameters".format, 0.03),
    "macs": Metric(lambda one: one.macs, "{:,.0f} multiply–accumulates".format, 0.03),
    "memory": Metric(lambda one: one.timing.memory_mb, "{:.3g} MB resident".format, 0.05, structure=True),
    "switch": Metric(lambda one: one.switch_ms, "{:.3g} ms to switch".format, 0.1),
}
DEFAULT_METRICS = ("accuracy", "latency", "size")


def _metric(name: str) -> Metric:
    """The metric of that name, else the score: a share like the accuracy."""
    return METRICS.get(name) or replace(METRICS["accuracy"], read=lambda one: one.scores.get(name))


class SelectionError(OnnxShiftError):
    """The profile does not say enough about the variants to choose among them."""


class NotMeasuredError(SelectionError):
    """A metric to choose by that the profile does not hold for some variant."""


@dataclass(frozen=True)
class Selection:
    """Names kept, in the order given, and for every name dropped the reason.

    `optimal` are those that no other makes needless: neither guessing, nor dominated, nor a near-duplicate; empty where
    `metrics` were not measured. `notes` say what else is to be known. `efficiency` is the share of
    the optimal ones (the paper's Table 3).
    """

    kept: tuple[str, ...]
    dropped: Mapping[str, str]
    optimal: tuple[str, ...]
    metrics: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def efficiency(self) -> float:
        return len(self.optimal) / (len(self.kept) + len(self.dropped))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kept": list(self.kept),
            "dropped": dict(self.dropped),
            "optimal": list(self.optimal),
            "metrics": list(self.metrics),
            "efficiency": round(self.efficiency, 4),
        }


def select(
    profile: Profile,
    names: Sequence[str] | None = None,
    *,
    max_variants: int | None = None,
    keep_all: bool = False,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Selection:
    """Choose among `names` (default: all variants of `profile`) and say why others are dropped.

    `keep_all` keeps every variant and still reports which are Pareto-optimal, if it can. Raises SelectionError naming
    the variant, metric or option: unknown metric, no profile of a name, a metric that was not measured.
    """
    names = list(profile.variants) if names is None else names
    if not names:
        raise SelectionError("there is no variant to choose from")
    if max_variants is not None and max_variants < 1:
        raise SelectionError("{max_variants}: at least one variant must stay", max_variants=max_variants)
    if max_variants is not None and keep_all:
        raise SelectionError(
            "{keep_all} keeps every variant: leave out {max_variants}", keep_all=True, max_variants=None
        )
    if not metrics:
        raise SelectionError("there is no metric to choose by")
    notes = _claims(profile, names) if "accuracy" in metrics else ()
    try:
        values = _without_noise(profile, {name: _values(profile, name, metrics) for name in names})
    except NotMeasuredError:
        if not keep_all:
            raise
        return Selection(tuple(names), {}, (), tuple(metrics), notes)
    optimal = tuple(_rest(names, _needless(profile, names, values, (_guesses,))))
    if keep_all:
        return Selection(tuple(names), {}, optimal, tuple(metrics), notes)
    dropped = _needless(profile, names, values, (_guesses, _slower_than_dense))
    kept = _rest(names, dropped)
    if not kept:
        reason = f"no variant is worth keeping ({names[0]}: {dropped[names[0]]})"
        raise SelectionError(f"{reason}; see {{keep_all}}", keep_all=True)
    if max_variants is not None and len(kept) > max_variants:
        chosen = _furthest_apart(kept, values, max_variants)
        dropped |= {
            name: f"not among the {max_variants} that lie furthest apart" for name in kept if name not in chosen
        }
    return Selection(tuple(_rest(names, dropped)), dropped, optimal, tuple(metrics), notes)


def _claims(profile: Profile, names: Sequence[str]) -> tuple[str, ...]:
    claimed = [name for name in names if name in profile.variants and profile.variants[name].accuracy_claimed]
    return (f"chosen by accuracies that are claimed, not measured: {', '.join(claimed)}",) if claimed else ()


def _needless(
    profile: Profile,
    names: Sequence[str],
    values: Mapping[str, "Values"],
    reasons: Sequence[Callable[[Profile, str], str | None]],
) -> dict[str, str]:
    """Return why a variant is not needed: for one of `reasons`, or because of another that none of them drops."""
    dropped: dict[str, str] = {}
    for reason in reasons:
        for name in _rest(names, dropped):
            if why := reason(profile, name):
                dropped[name] = why
    _drop_dominated(names, values, dropped)
    _drop_near_duplicates(names, values, dropped)
    return dropped


Values = Mapping[str, float]  # metric -> value turned so that smaller is better


def _values(profile: Profile, name: str, metrics: Sequence[str]) -> Values:
    entry = profile.variants.get(name)
    if entry is None:
        raise SelectionError(f"{name}: the profile holds no variant of this name, so it is of other models")
    found = {}
    for metric in metrics:
        if metric not in METRICS and not any(metric in one.scores for one in profile.variants.values()):
            known = [*METRICS, *dict.fromkeys(score for one in profile.variants.values() for score in one.scores)]
            raise SelectionError(f"metric {metric}: unknown; choose from {', '.join(known)}")
        value = _metric(metric).read(entry)
        if value is None:
            hint = "profile with {data}, or " if metric in ("accuracy", "top5") else ""
            raise NotMeasuredError(
                f"{name}: the profile holds no {metric}; {hint}choose by what it holds, such as {{metrics}}, "
                "or {keep_all}",
                metrics=["latency", "size"],
                keep_all=True,
                data=None,
            )
        found[metric] = -value if _metric(metric).larger_is_better else value
    return found


def _without_noise(profile: Profile, values: Mapping[str, Values]) -> Mapping[str, Values]:
    """Give networks of one structure the median of what was measured of them all."""
    alike: dict[str, list[Values]] = {}
    keys = {name: profile.variants[name].structure or name for name in values}
    for name, key in keys.items():
        alike.setdefault(key, []).append(values[name])
    return {
        name: {
            metric: median(other[metric] for other in alike[keys[name]]) if _metric(metric).structure else value
            for metric, value in values[name].items()
        }
        for name in values
    }


def _rest(names: Sequence[str], dropped: Mapping[str, str]) -> list[str]:
    return [name for name in names if name not in dropped]


def _guesses(profile: Profile, name: str) -> str | None:
    entry = profile.variants[name]
    accuracy, classes, images = entry.accuracy, entry.classes, entry.images
    if accuracy is None or not classes or not images:
        return None
    chance = 1 / classes
    if accuracy > chance + 3 * math.sqrt(chance * (1 - chance) / images):
        return None
    return f"no better than guessing: {accuracy:.1%} right of {classes} classes"


def _slower_than_dense(profile: Profile, name: str) -> str | None:
    """Why it is slower: by more than the tolerance, measured side by side, and in every round.

    One of the dense model's structure is as fast, whatever was measured.
    """
    entry, dense = profile.variants[name], profile.variants.get(profile.dense or "")
    found = entry.timing.compared
    if found is None or name == profile.dense or (dense and entry.structure and entry.structure == dense.structure):
        return None
    if found.high >= 1 or found.median * (1 + METRICS["latency"].tolerance) >= 1:
        return None
    return f"slower than the dense model: {found.median:.2f} times as fast, at best {found.high:.2f}"


def _dominates(one: Values, other: Values) -> bool:
    return all(one[metric] <= other[metric] for metric in one) and any(one[metric] < other[metric] for metric in one)


def _drop_dominated(names: Sequence[str], values: Mapping[str, Values], dropped: dict[str, str]) -> None:
    rest = _rest(names, dropped)
    front = [name for name in rest if not any(_dominates(values[other], values[name]) for other in rest)]
    for name in rest:
        better = next((other for other in front if _dominates(values[other], values[name])), None)
        if better is not None:
            dropped[name] = f"{better} is nowhere worse ({_figures(values[better])})"


def _drop_near_duplicates(names: Sequence[str], values: Mapping[str, Values], dropped: dict[str, str]) -> None:
    """Drop what another variant replaces within the tolerances; that other one then has to stay."""
    needed: set[str] = set()
    for name in sorted(_rest(names, dropped), key=lambda name: list(values[name].values())[-1], reverse=True):
        stand_in = next(
            (
                other
                for other in _rest(names, dropped)
                if other != name and name not in needed and _replaces(values[other], values[name])
            ),
            None,
        )
        if stand_in is not None:
            needed.add(stand_in)
            dropped[name] = f"near-duplicate of {stand_in} ({_figures(values[stand_in])})"


def _replaces(one: Values, other: Values) -> bool:
    return all(one[metric] - other[metric] <= _allowance(metric, other[metric]) for metric in one)


def _allowance(metric: str, value: float) -> float:
    how = _metric(metric)
    return how.tolerance if how.absolute else how.tolerance * abs(value)


def _figures(values: Values) -> str:
    return ", ".join(_metric(metric).show(abs(value)) for metric, value in values.items())


def _furthest_apart(names: Sequence[str], values: Mapping[str, Values], count: int) -> set[str]:
    """The best variant in the first metric, then again and again the one furthest from all chosen."""
    ranks = {
        metric: {name: rank for rank, name in enumerate(sorted(names, key=lambda name: values[name][metric]))}
        for metric in values[names[0]]
    }
    chosen = [min(names, key=lambda name: ranks[next(iter(ranks))][name])]

    def distance(name: str) -> int:
        return min(sum(abs(rank[name] - rank[other]) for rank in ranks.values()) for other in chosen)

    while len(chosen) < count:
        chosen.append(max((name for name in names if name not in chosen), key=distance))
    return set(chosen)
