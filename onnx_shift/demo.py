"""The whole path on real data: train, export, prune, verify, profile, choose, pack, switch, report.

Everything is written below one folder and can be looked at, or used, afterwards. The same folder given again
resumes the training it holds.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import make_folder, write_text
from onnx_shift.steps import Steps

if TYPE_CHECKING:
    from onnx_shift.portfolio.profile import Profile

PRESET = "digits"
LARGEST_DIFFERENCE = 1e-4  # of the output's scale
_DAY_SECONDS = 10


@dataclass(frozen=True)
class Files:
    """Where the demo writes."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def pruned(self) -> Path:
        return self.folder / "pruned"

    @property
    def profile(self) -> Path:
        return self.folder / "profile.json"

    @property
    def portfolio(self) -> Path:
        return self.folder / "portfolio.zip"

    @property
    def replay(self) -> Path:
        return self.folder / "replay.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def picture(self) -> Path:
        return self.folder / "demo.png"

    @property
    def figures(self) -> Path:
        return self.folder / "demo.json"


def run_demo(folder: Path, log: Console, *, date: str, levels: int | None = None) -> dict[str, Any]:
    """Run the whole path below `folder` and return its figures, which are also written to demo.json.

    `levels` fewer than the preset's make it shorter. Raises OnnxShiftError when a pruned model does not
    equal its sparse one: larger difference than 1e-4 of the output's scale, or an image classified otherwise.
    """
    from onnx_shift.portfolio.select import select

    files = Files(folder)
    make_folder(folder)
    make_folder(files.pruned)
    with Steps(log) as steps:
        sparse = _train(files, steps, levels)
        equality = _prune(files, sparse, steps)
        profile, dropped = _profile_and_pack(files, sparse, steps, date)
        memory = _memory(files, [name for name in profile.variants if name not in dropped], steps)
        replay = _replay(files, steps)
        measured = profile.to_dict()
        figures = {
            "format": 1,
            "machine": measured["machine"],
            "equality": equality,
            "profile": measured,
            "dropped": dropped,
            "efficiency": round(select(profile, keep_all=True).efficiency, 4),  # the paper's Table 3
            "memory": memory,
            "replay": replay,
            "seconds": steps.seconds,
        }
        write_text(files.figures, json.dumps(figures, indent=2) + "\n")
        with steps.step("Writing the report"):
            _report(files, figures)
    return figures


def _train(files: Files, steps: Steps, levels: int | None) -> list[Path]:
    import torch

    from onnx_shift.exporter.progress import describe, time_left
    from onnx_shift.exporter.recipe import PRESETS
    from onnx_shift.exporter.rounds import Level, Progress, train

    recipe = PRESETS[PRESET] if levels is None else replace(PRESETS[PRESET], levels=levels)
    with steps.step("Training sparse networks") as advance:

        def show(progress: Progress) -> None:
            advance(progress.done, f"{describe(progress)}  {time_left(progress.seconds_left)}")

        def tell(level: Level) -> None:
            steps.note(f"  ratio {level.ratio:.0f}: {level.accuracy:.2%} of the test images right")

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # layers this small keep a second thread waiting, and it spins meanwhile
        try:
            run = train(recipe, files.run, progress=show, level_done=tell)
        finally:
            torch.set_num_threads(threads)
    return [level.onnx for level in run.levels]


def _prune(files: Files, sparse: Sequence[Path], steps: Steps) -> dict[str, Any]:
    """Prune every level and hold it against its original: outputs on random inputs, classes of all images."""
    from onnx_shift.onnx_pruner import prune
    from onnx_shift.portfolio.evaluation import labelled_images

    images = np.concatenate([pixels for pixels, _ in labelled_images(PRESET, sparse[0])()])
    differences = []
    with steps.step("Pruning, checking equality") as advance:
        for number, path in enumerate(sparse):
            advance(number / len(sparse), path.stem)
            result = prune(path)
            pruned = files.pruned / path.name
            result.save(pruned)
            report = json.dumps(result.report.to_dict(), indent=2) + "\n"
            write_text(pruned.with_suffix(".json"), report)
            differences.append(result.report.largest_difference or 0.0)
            changed = int((_classes(path, images) != _classes(pruned, images)).sum())
            if changed or differences[-1] > LARGEST_DIFFERENCE:
                raise OnnxShiftError(
                    f"{pruned}: does not equal {path}: largest difference {differences[-1]:.1e} of the "
                    f"output's scale, {changed} of {len(images)} test images classified otherwise"
                )
    return {
        "models": len(sparse),
        "largest_difference": max(differences),
        "images": len(images),
        "changed": 0,
    }


def _classes(model: Path, images: NDArray[Any]) -> NDArray[np.int64]:
    from onnx_shift.ort import CPU
    from onnx_shift.portfolio.sessions import open_session

    session = open_session(model, [CPU], 1)
    answer: NDArray[np.int64] = session.run(None, {session.get_inputs()[0].name: images})[0].argmax(axis=1)
    return answer


def _profile_and_pack(
    files: Files, sparse: Sequence[Path], steps: Steps, date: str
) -> "tuple[Profile, dict[str, str]]":
    from onnx_shift.portfolio.evaluation import labelled_images
    from onnx_shift.portfolio.pack import pack
    from onnx_shift.portfolio.profiling import Settings, profile

    models = [files.pruned / path.name for path in sparse]
    with steps.step("Measuring side by side") as advance:
        done = iter(range(1000))
        found = profile(
            models,
            dense=models[0],
            data=labelled_images(PRESET, models[0]),
            settings=Settings(batches=(1, 16), seconds=0.6, attempts=2),
            date=date,
            progress=lambda doing: advance(min(0.99, next(done) / (3 * len(models) + 3)), doing),
        )
    found.save(files.profile)
    with steps.step("Packing the best variants"):
        dropped = dict(pack(models, files.portfolio, profile=found).dropped)
    return found, dropped


def _memory(files: Files, kept: Sequence[str], steps: Steps) -> dict[str, Any]:
    """Resident memory of the portfolio with each variant active, and of all their sessions open at once."""
    from onnx_shift.portfolio.memory import measure_portfolio, measure_sessions

    with steps.step("Measuring memory"):
        together = measure_sessions([files.pruned / f"{name}.onnx" for name in kept])
        switched = measure_portfolio(files.portfolio)
    return {
        "all_sessions_mb": None if together is None else round(together.resident_bytes / 1e6, 2),
        "portfolio_mb": {name: round(found.resident_bytes / 1e6, 2) for name, found in switched.items()},
    }


def _replay(files: Files, steps: Steps) -> dict[str, Any]:
    """Serve a day's load, squeezed into seconds, in requests of sixteen images; see runtime.replay."""
    from onnx_shift.portfolio.evaluation import labelled_images
    from onnx_shift.portfolio.sessions import session_options
    from onnx_shift.runtime import Portfolio
    from onnx_shift.runtime.replay import Moment, replay
    from onnx_shift.runtime.trace import builtin_trace

    portfolio = Portfolio.open(files.portfolio)
    images, _ = next(labelled_images(PRESET, next(files.pruned.glob("*.onnx")))())
    runs = ["policy", "smallest", "largest"]
    with steps.step("Switching under load") as advance:

        def show(moment: Moment) -> None:
            done = (runs.index(moment.run) + moment.time_s / moment.duration_s) / len(runs)
            advance(min(done, 1.0), f"{moment.requests_per_second:,.0f} requests/s, {moment.active}")

        timeline = replay(
            portfolio,
            builtin_trace("day", _DAY_SECONDS),
            sess_options=session_options(1),
            feed={portfolio.inputs[0].name: images[:16]},
            progress=show,
        )
    found = timeline.to_dict()
    write_text(files.replay, json.dumps(found, indent=1) + "\n")
    return found


def _report(files: Files, figures: Mapping[str, Any]) -> None:
    from onnx_shift.report.evidence import gather_evidence
    from onnx_shift.report.page import render_page
    from onnx_shift.views.picture import write_demo_picture
    from onnx_shift.views.timeline import can_draw

    write_text(files.report, render_page(gather_evidence(files.folder)))
    if can_draw():
        write_demo_picture(figures, files.picture)


def demo_lines(figures: Mapping[str, Any], folder: Path) -> list[str]:
    """What the demo found, in sentences, and what to do next."""
    from onnx_shift.portfolio.profile import Profile

    files, command = Files(folder), _command()
    variants = Profile.from_dict(figures["profile"]).variants
    kept = [name for name in variants if name not in figures["dropped"]]
    equality, memory = figures["equality"], figures["memory"]
    switches = [cost for name in kept if (cost := variants[name].switch_ms) is not None]
    lines = [
        f"Equal: {equality['models']} pruned models differ from their sparse ones by at most "
        f"{equality['largest_difference']:.0e} of the output's scale, and classify all "
        f"{equality['images']} test images alike.",
    ]
    if switches:
        lines.append(f"Switching: {min(switches):.1f} to {max(switches):.1f} ms from one variant to another.")
    if memory["portfolio_mb"]:
        least, most = min(memory["portfolio_mb"].values()), max(memory["portfolio_mb"].values())
        lines.append(
            f"Memory: {least:.1f} to {most:.1f} MB with the portfolio and one variant active, "
            f"{memory['all_sessions_mb']:.1f} MB with a session of each of the {len(kept)} variants open."
        )
    if any(latency.noisy for one in variants.values() for latency in one.timing.latency.values()):
        lines.append("Noise: ~ marks latencies whose rounds lay far apart; a quieter machine gives better ones.")
    runs = figures["replay"]["runs"]
    lines.append(
        f"Under load: {runs['policy']['within_objective']:.1%} of the requests answered in time by switching, "
        f"{runs['largest']['within_objective']:.1%} by {figures['replay']['variants'][-1]} alone; accuracy "
        f"{runs['policy']['accuracy']:.2%} by switching, {runs['smallest']['accuracy']:.2%} by "
        f"{figures['replay']['variants'][0]} alone."
    )
    lines += [
        "",
        f"Look:  {files.report}  (open it in a browser)",
        f'Use:   {files.portfolio}  with  ModelSwitcher(Portfolio.open("{files.portfolio}"))',
        "",
        "Next:",
        f"  {command} inspect {files.portfolio}",
        f"  {command} prune {files.run / 'level-03.onnx'} --explain -o {folder / 'level-03.pruned.onnx'}",
        f"  {command} prune your-sparse-model.onnx",
        f"  {command} train --help",
    ]
    return lines


def _command() -> str:
    """Return what to type: the command's name where that is on the PATH, else what was typed just now."""
    typed = sys.argv[0]
    by_path = Path(typed).name == "onnx-shift" and shutil.which("onnx-shift") is None
    return typed if by_path else "onnx-shift"
