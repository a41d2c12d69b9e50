"""The demo's picture for the README: what the variants cost and gain, and the switcher under a changing load."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import atomic_path
from onnx_shift.report.charts import pareto_front

if TYPE_CHECKING:
    from onnx_shift.portfolio.profile import Profile

_KEPT, _LEFT_OUT, _DENSE, _FRONT, _INK = "#0b62c4", "#9aa2ab", "#b45309", "#7fb1ea", "#3c434c"


def write_demo_picture(figures: Mapping[str, Any], path: Path) -> None:
    """Write the picture of the demo's `figures` (its demo.json) to `path`, as PNG.

    Raises OnnxShiftError where matplotlib, of the extra onnx-shift[report], is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OnnxShiftError(f"{path}: drawing needs the extra onnx-shift[report] ({error.name})") from error
    figure = Figure(figsize=(10, 8), layout="constrained", facecolor="white")
    draw_demo(figures, figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def draw_demo(figures: Mapping[str, Any], figure: Any) -> None:
    """Draw the demo's `figures` into a matplotlib figure."""
    from onnx_shift.portfolio.profile import Profile

    layout = [["size", "latency"], ["load", "load"], ["answer", "answer"], ["active", "active"]]
    panels = figure.subplot_mosaic(layout, height_ratios=[4, 1.3, 1.8, 1.3])
    profile, dropped = Profile.from_dict(figures["profile"]), figures["dropped"]
    sizes = {name: one.file_bytes / 1e3 for name, one in profile.variants.items()}
    latencies = {name: one.timing.median_ms for name, one in profile.variants.items()}
    _trade_off(panels["size"], profile, dropped, sizes, "file size, kB")
    _trade_off(panels["latency"], profile, dropped, latencies, "median latency, ms")
    panels["size"].set_xscale("log")
    ticks = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
    low, high = 0.8 * min(sizes.values()), 1.2 * max(sizes.values())
    panels["size"].set_xticks([tick for tick in ticks if low < tick < high])
    panels["size"].xaxis.set_major_formatter("{x:.0f}")
    panels["size"].minorticks_off()
    panels["size"].legend(frameon=False, loc="lower right", fontsize=9)
    _under_load(panels, figures["replay"])
    for panel in panels.values():
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=_INK, labelsize=9)


def _trade_off(
    panel: Any, profile: "Profile", dropped: Mapping[str, str], costs: Mapping[str, float], title: str
) -> None:
    accuracy = {name: 100 * (one.accuracy or 0.0) for name, one in profile.variants.items()}
    dense = [profile.dense] if profile.dense else []
    front = pareto_front(costs, accuracy)
    panel.step(*zip(*front, strict=True), where="post", color=_FRONT, linestyle="--", label="Pareto front")
    kinds = {
        "kept": [name for name in costs if name not in dropped],
        "left out": [name for name in costs if name in dropped],
        "dense": dense,
    }
    looks = {
        "kept": {"color": _KEPT, "s": 55, "zorder": 3},
        "left out": {"facecolor": "white", "edgecolor": _LEFT_OUT, "s": 40, "zorder": 2},
        "dense": {"color": _DENSE, "marker": "D", "s": 50, "zorder": 4},
    }
    for kind, names in kinds.items():
        panel.scatter([costs[n] for n in names], [accuracy[n] for n in names], label=kind, **looks[kind])
    for name in (*kinds["kept"], *dense):
        panel.annotate(
            f"{profile.variants[name].ratio or 1:.0f}×",
            (costs[name], accuracy[name]),
            xytext=(8, -11),
            textcoords="offset points",
            fontsize=9,
        )
    panel.margins(0.12)
    panel.set_xlabel(title, color=_INK)
    panel.set_ylabel("accuracy, %", color=_INK)


def _under_load(panels: Mapping[str, Any], replay: Mapping[str, Any]) -> None:
    """Three panels over a common time: what was asked, how fast it was answered, which variant served."""
    runs = replay["runs"]
    load, answer, active = (panels[name] for name in ("load", "answer", "active"))

    def series(run: str, key: str) -> tuple[list[float], list[float]]:
        rows = [row for row in runs[run]["intervals"] if row[key] is not None]
        return [row["seconds"] for row in rows], [row[key] for row in rows]

    load.step(*series("policy", "requests_per_second"), where="post", color=_INK)
    load.axhline(replay["largest_serves_per_second"], color=_DENSE, linestyle=":")
    load.set_ylabel("requests/s", color=_INK)
    for name, label, colour in (
        ("largest", "largest always", _DENSE),
        ("smallest", "smallest always", _LEFT_OUT),
        ("policy", "switching", _KEPT),
    ):
        answer.plot(*series(name, "p95_ms"), color=colour, label=label)
    answer.axhline(replay["objective_ms"], color=_INK, linestyle=":")
    answer.set_yscale("log")
    answer.set_ylabel("p95, ms", color=_INK)
    answer.legend(frameon=False, fontsize=9, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.18))
    seconds, names = series("policy", "variant")
    active.step(seconds, [replay["variants"].index(name) for name in names], where="post", color=_KEPT)
    active.set_yticks(range(len(replay["variants"])), replay["variants"])
    active.set_ylim(-0.3, len(replay["variants"]) - 0.7)
    active.set_xlabel("seconds", color=_INK)
    for panel in (answer, active):
        panel.sharex(load)
    for panel in (load, answer):
        panel.tick_params(labelbottom=False)
