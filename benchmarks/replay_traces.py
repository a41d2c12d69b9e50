"""Published kinds of load served by a really trained portfolio: our policy, how published systems choose, and what
would be possible were the load known beforehand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.support.variants import missing as missing
from benchmarks.support.variants import pruned_variants, test_images
from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profile import Profile
from onnx_shift.portfolio.profiling import Settings, profile
from onnx_shift.portfolio.sessions import session_options
from onnx_shift.runtime import Portfolio
from onnx_shift.runtime.policies import policy_maker
from onnx_shift.runtime.queueing import ServedTrace, clairvoyant
from onnx_shift.runtime.replay import Timeline, replay
from onnx_shift.runtime.trace import RecordedTrace, Trace, builtin_trace, random_trace

TITLE = "Replay: published kinds of load, our policy beside those of published systems and the clairvoyant"
MINUTES = 5.5
PICTURE_INCHES = (12, 6)

SECONDS = 3.5
IMAGES = 16  # of a request
OBJECTIVE_MS = 100.0
LOAD = 0.5  # of what the largest variant serves, on average
AS_MANY = 1e-3  # attainment counts as no less within a request in a thousand
LITTLE = 1e-3  # of accuracy: where no more than that is possible, a part of it would be noise
OURS, STEADY = "deadline", "latency"
BASELINES = {
    "qps": "queries per second (the paper)",
    "profile": "profile-driven (INFaaS)",
    "slack": "slack (SuperServe)",
    "scaling": "accuracy scaling (Proteus)",
}
_SERVED_BY = {
    "policy": "deadline (ours)",
    STEADY: "latency objective (ours, by default)",
    **BASELINES,
    "smallest": "smallest always",
    "largest": "largest always",
    "clairvoyant": "clairvoyant, on paper",
}


def loads(seconds: float) -> dict[str, Trace]:
    """Return the loads by name, as published comparisons draw them."""

    def steps(cv: int) -> Trace:
        """The first draw that brings a load worth the name: at cv 8 most draws of a few seconds are empty."""
        drawn = (random_trace("bursty", seconds, load=LOAD, cv=cv, seed=seed) for seed in count())
        return next(trace for trace in drawn if mean(trace.loads) >= LOAD / 2)

    return {
        "Poisson": random_trace("poisson", seconds, load=LOAD),
        "gamma, cv 4": random_trace("gamma", seconds, load=LOAD, cv=4.0),
        **{f"half-second steps, cv {cv}": steps(cv) for cv in (1, 2, 4, 8)},
        "ramp": builtin_trace("ramp", seconds),
        "Azure-like": azure_like(seconds),
    }


def azure_like(seconds: float, functions: int = 40, seed: int = 0) -> RecordedTrace:
    """Return synthetic invocations with the traits of the Azure Functions trace of 2021: few functions bring most of
    them, a third fires at fixed periods, the others in sessions that last by a heavy-tailed law. Thinned to `LOAD`.
    """
    random = np.random.default_rng(seed)
    rates = 4000 / np.arange(1, functions + 1) ** 1.2  # per second; more than can be kept, so that thinning has to
    times = []
    for number, rate in enumerate(rates):
        if number % 3 == 0:
            period_s = float(random.choice([0.05, 0.1, 0.25, 0.5]))
            beats = np.arange(random.random() * period_s, seconds, period_s)
            times.append(np.repeat(beats, max(1, round(rate * period_s / 4))))
            continue
        at = random.random()
        while at < seconds:
            lasts = min(0.1 * (1 + random.pareto(1.5)), seconds)
            times.append(at + np.sort(random.random(random.poisson(rate * lasts))) * lasts)
            at += lasts + random.exponential(1.5)
    invoked = np.sort(np.concatenate(times))
    invoked = invoked[invoked < seconds]
    counts = np.histogram(invoked, 100, (0.0, seconds))[0] / (seconds / 100)
    return RecordedTrace("azure-like", seconds / 100, tuple(counts.tolist()), False, 1.0, tuple(invoked.tolist()), LOAD)


def measure(work: Path) -> dict[str, Any]:
    models = [variant.path for variant in pruned_variants(work / "pruned")]
    return measure_on(models, work, loads(SECONDS))


def measure_on(models: Sequence[Path], work: Path, traces: Mapping[str, Trace]) -> dict[str, Any]:
    """Serve `traces` from those of `models` that are worth shipping."""
    pack(models, work / "portfolio.zip", profile=_profile_of_requests(models))
    portfolio = Portfolio.open(work / "portfolio.zip")
    images, _ = next(test_images(models[0])())
    found = {}
    for name, trace in traces.items():
        timeline = replay(
            portfolio,
            trace,
            make_policy=policy_maker(OURS),
            others={other: policy_maker(other) for other in (STEADY, *BASELINES)},
            objective_ms=OBJECTIVE_MS,
            sess_options=session_options(1),
            feed={portfolio.inputs[0].name: images[:IMAGES]},
            cache=work / "cache",
        )
        found[name] = replace(timeline, runs={**timeline.runs, "clairvoyant": known_beforehand(timeline)}).to_dict()
    runs = {name: one["runs"] for name, one in found.items()}
    figures = figures_of(runs)
    shown = next(iter(found.values()))
    variants = ", ".join(
        f"{variant.name} {variant.metadata['accuracy']:.2%} ({time_ms:.1f} ms)"
        for variant, time_ms in zip(portfolio, shown["service_ms"], strict=True)
    )
    return {
        "rows": [_row(load, name, run) for load, one in runs.items() for name, run in one.items()],
        "tables": {"All loads together": [_overall(name, runs.values()) for name in _SERVED_BY]},
        "figures": figures,
        "notes": [
            f"Variants that selection keeps: {variants} for a request of {IMAGES} images, one thread, kernels on. "
            f"Loads bring {LOAD:.0%} of what the largest serves (the ramp 20 to 140 %), {SECONDS:g} seconds "
            "each; half-second steps are gamma distributed with that coefficient of variation, cut at 180 %, the first "
            "draw that brings half of the load or more. Azure-like is synthetic, as no trace is shipped. In time is "
            f"within {OBJECTIVE_MS:g} ms; accuracy is the mean of what was served.",
            "Baselines are written from their papers' descriptions for one device and one queue, and know from the "
            "profile what a request costs. attainment_least: ours in time, at the worst load that the smallest "
            "alone answers to 98 % in time. towards_clairvoyant: all loads together, the accuracy by which ours "
            "exceeds the best baseline that answers no less in time, as a share of what lies between that and the "
            "clairvoyant, who knows the load and chooses anew every second to ten times a second, as serves it best.",
        ],
        "details": found,
    }


def known_beforehand(timeline: Timeline) -> ServedTrace:
    """Return what the clairvoyant makes of it that chooses as often as serves it best, if not at a cost in time."""
    assert timeline.accuracies is not None  # they were measured
    service_s = [time_ms / 1e3 for time_ms in timeline.service_ms]
    arrived_s = timeline.runs["smallest"].arrived_s
    found = [
        clairvoyant(arrived_s, interval_s, service_s, timeline.accuracies, timeline.objective_ms)
        for interval_s in (1.0, 0.5, 0.25, 0.1)
    ]
    most = max(run.within(timeline.objective_ms) for run in found)
    in_time = [run for run in found if run.within(timeline.objective_ms) >= (1 - AS_MANY) * most]
    return max(in_time, key=lambda run: run.accuracy(timeline.accuracies or ()))


def _profile_of_requests(models: Sequence[Path]) -> Profile:
    """Profile `models` with a request of `IMAGES` images in the place of one image: what policies are to know."""
    settings = Settings(batches=(IMAGES,), seconds=1.0, attempts=3, memory=False)
    found = profile(models, dense=models[0], settings=settings)
    variants = {}
    for name, one in found.variants.items():
        latency, speedup = one.timing.latency[IMAGES], one.timing.speedup[IMAGES]
        variants[name] = replace(one, timing=replace(one.timing, latency={1: latency}, speedup={1: speedup}))
    return replace(found, variants=variants)


def figures_of(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Return what the targets are about, of the runs of every load by name."""
    attained = {name: mean(one[name]["within_objective"] for one in runs.values()) for name in _SERVED_BY}
    accurate = {name: mean(one[name]["mean_accuracy_served"] for one in runs.values()) for name in _SERVED_BY}
    best = max(
        accurate[name] for name in (*BASELINES, "smallest") if attained[name] >= attained["policy"] - AS_MANY
    )  # fmt: skip
    possible = [one for one in runs.values() if one["smallest"]["within_objective"] >= 0.98]
    return {
        "attainment_least": min((one["policy"]["within_objective"] for one in possible), default=0.0),
        "attainment": attained["policy"],
        "accuracy": 100 * accurate["policy"],
        "points_over_best_baseline": 100 * (accurate["policy"] - best),
        "towards_clairvoyant": (accurate["policy"] - best) / max(accurate["clairvoyant"] - best, LITTLE),
        "loads_possible": len(possible),
    }


def _row(load: str, name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "load": load,
        "served by": _SERVED_BY[name],
        "requests": run["requests"],
        "in time": f"{run['within_objective']:.1%}",
        "p99, ms": run["latency_ms"]["p99"],
        "mean accuracy": f"{run['mean_accuracy_served']:.2%}",
        "largest drop, points": 100 * run["largest_accuracy_drop"],
        "switches": run["switches"],
    }


def _overall(name: str, runs: Any) -> dict[str, Any]:
    found = [one[name] for one in runs]
    return {
        "served by": _SERVED_BY[name],
        "in time": f"{mean(run['within_objective'] for run in found):.2%}",
        "in time, worst load": f"{min(run['within_objective'] for run in found):.2%}",
        "mean accuracy": f"{mean(run['mean_accuracy_served'] for run in found):.2%}",
    }


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    panels = figure.subplots(2, 4, sharey=True).flatten()
    for axes, (load, one) in zip(panels, result["details"].items(), strict=False):
        for name in _SERVED_BY:
            run = one["runs"][name]
            ours = name == "policy"
            axes.plot(
                100 * run["within_objective"],
                100 * run["mean_accuracy_served"],
                "*" if ours else "o",
                markersize=12 if ours else 6,
                label=_SERVED_BY[name],
            )
        axes.set_title(load, fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels[4:]:
        axes.set_xlabel("in time, %")
    for axes in panels[::4]:
        axes.set_ylabel("mean accuracy, %")
    panels[0].legend(frameon=False, fontsize="x-small", loc="lower left")
