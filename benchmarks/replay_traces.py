"""The built-in load traces served by a really trained portfolio, beside smallest always and largest always."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median_low
from typing import Any

from matplotlib.figure import Figure

from benchmarks.support.results import range_of
from benchmarks.support.variants import portfolio_worth_shipping, pruned_variants, test_images
from onnx_shift.portfolio.sessions import session_options
from onnx_shift.runtime import Portfolio
from onnx_shift.runtime.replay import replay
from onnx_shift.runtime.trace import SHAPES, builtin_trace

TITLE = "Replay: load traces served by switching, and by one variant always"
MINUTES = 13
PICTURE_INCHES = (12, 7)

ROUNDS = 5  # other requests each, all traces in turn: a machine that others use is slower at times
SECONDS = 10
IMAGES = 16
_COLOURS = {"policy": "#0b62c4", "smallest": "#6b7280", "largest": "#b45309"}
_SERVED_BY = {
    "policy": "switching, latency objective",
    "smallest": "smallest always",
    "largest": "largest always",
    "clairvoyant": "clairvoyant, on paper",
}


def measure(work: Path) -> dict[str, Any]:
    models = [variant.path for variant in pruned_variants(work / "pruned")]
    portfolio = Portfolio.open(portfolio_worth_shipping(models, work / "portfolio.zip"))
    images, _ = next(test_images(models[0])())
    rounds: dict[str, list[dict[str, Any]]] = {trace: [] for trace in SHAPES}
    for seed in range(ROUNDS):
        for trace, found in rounds.items():
            timeline = replay(
                portfolio,
                builtin_trace(trace, SECONDS),
                sess_options=session_options(1),
                feed={portfolio.inputs[0].name: images[:IMAGES]},
                seed=seed,
                cache=work / "cache",
            )
            found.append(timeline.to_dict())
    rows, figures, spread, details = [], {}, {}, {}
    for trace, found in rounds.items():
        for key in ("within_of_smallest", "accuracy_gain"):
            values = [one["figures"][key] for one in found]
            middle = median_low(values)
            figures[f"{trace}_{key}"], spread[f"{trace}_{key}"] = middle, range_of(values)
        shown = details[trace] = found[values.index(middle)]  # the round of the middle gain
        rows += [_row(trace, name, run_) for name, run_ in shown["runs"].items()]
    accuracies = ", ".join(
        f"{variant.name} {variant.metadata['accuracy']:.2%} ({time_ms:.1f} ms)"
        for variant, time_ms in zip(portfolio, shown["service_ms"], strict=True)
    )
    return {
        "rows": rows,
        "figures": figures,
        "spread": spread,
        "notes": [
            f"Variants that selection keeps: {accuracies} for a request of {IMAGES} images, one "
            f"thread. Loads are relative to what the largest serves, at random times, {SECONDS} seconds each; in time "
            f"is within {shown['objective_ms']:g} ms. Shown is the round of the middle gain of {ROUNDS}.",
            "within_of_smallest: requests that switching answers in time over those that the smallest variant does; "
            "accuracy_gain: the accuracy it gains over the smallest, as a share of what the best variant per interval "
            "would gain were the load known beforehand.",
            f"Between the smallest and the largest lie {_gap(shown):.1f} points of accuracy: so much there is to gain "
            "with this portfolio, and no more.",
        ],
        "details": details,
    }


def _gap(found: Mapping[str, Any]) -> float:
    return 100 * (max(found["accuracies"]) - found["accuracies"][0])


def _row(trace: str, name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trace": trace,
        "served by": _SERVED_BY[name],
        "requests": run["requests"],
        "in time": f"{run['within_objective']:.1%}",
        "p50, ms": run["latency_ms"]["p50"],
        "p95, ms": run["latency_ms"]["p95"],
        "p99, ms": run["latency_ms"]["p99"],
        "accuracy": f"{run['accuracy']:.2%}",
        "switches": run["switches"],
    }


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    traces = result["details"]
    grid = figure.subplots(3, len(traces), sharex=True, sharey="row", squeeze=False)
    for column, (name, found) in zip(grid.T, traces.items(), strict=True):
        load, latency, active = column
        seconds = [row["seconds"] for row in found["runs"]["policy"]["intervals"]]
        load.step(
            seconds,
            [row["load"] for row in found["runs"]["policy"]["intervals"]],
            where="post",
            color="black",
        )
        load.axhline(1, color=_COLOURS["largest"], linewidth=0.8, linestyle=":")
        load.set_title(name)
        for run, colour in _COLOURS.items():
            rows = found["runs"][run]["intervals"]
            milliseconds = [float("nan") if row["p95_ms"] is None else row["p95_ms"] for row in rows]
            latency.plot(seconds, milliseconds, color=colour, label=_SERVED_BY[run])
        latency.axhline(found["objective_ms"], color="black", linewidth=0.8, linestyle=":")
        variants = found["variants"]
        served = [
            variants.index(row["variant"]) if row["variant"] else float("nan")
            for row in found["runs"]["policy"]["intervals"]
        ]
        active.step(seconds, served, where="post", color=_COLOURS["policy"])
        active.set_yticks(range(len(variants)), variants)
        active.set_xlabel("seconds")
        for axes in column:
            axes.grid(alpha=0.3)
    first = grid[:, 0]
    first[0].set(ylabel="load over what\nthe largest serves", ylim=(0, None))
    first[1].set(ylabel="p95 of the latency, ms", yscale="log")
    first[1].legend(frameon=False, fontsize="x-small")
    first[2].set_ylabel("variant that serves")
