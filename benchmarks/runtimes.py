"""The same networks in other runtimes: dense, with scattered zeros, with empty filters, and pruned."""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.support.results import range_of
from benchmarks.support.sparse_models import resnet20, vgg16
from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.engines import engine
from onnx_shift.onnx_pruner.engines.engine import ENGINES, CannotRunError, MissingEngineError, Run
from onnx_shift.ort import CPU
from onnx_shift.portfolio.sessions import session_options
from onnx_shift.runtime import kernels

TITLE = "Other runtimes: the same networks dense, with scattered zeros, and pruned, one thread"
MINUTES = 1.5

ZEROS, EMPTY = 0.95, 0.5
ROUNDS, TURN_S = 11, 0.02
NETWORKS: dict[str, Callable[..., onnx.ModelProto]] = {
    "VGG-16, half width": functools.partial(vgg16, width=0.5),
    "ResNet-20": resnet20,
}
KINDS = ("dense", "scattered", "empty filters", "pruned")
Open = Callable[[Path, Path], Run]


def measure(work: Path) -> dict[str, Any]:
    del work
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"largest_difference": 0.0}
    spread: dict[str, tuple[float, float]] = {}
    ways, notes = _ways()
    for network, build in NETWORKS.items():
        with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
            found = _compare(build, ways, Path(folder))
        for row in found:
            name = f"{row['runtime']} {network}".lower().replace(" ", "_").replace("-", "").replace(",", "")
            for kind in KINDS[1:]:
                ratios = row[kind]
                figures[f"{name}_{kind.replace(' ', '_')}"] = row[kind] = round(float(np.median(ratios)), 2)
                spread[f"{name}_{kind.replace(' ', '_')}"] = range_of(ratios)
            figures["largest_difference"] = max(figures["largest_difference"], row["difference"])
            rows.append({"network": network, **row})
    return {"rows": rows, "figures": figures, "spread": spread, "notes": [_NOTE, *notes]}


_NOTE = (
    f"Random weights, BatchNorm folded, one image of 32x32, one thread, float32. Scattered: {ZEROS:.0%} of the weights "
    f"of every convolution but the first are zero; empty filters: {EMPTY:.0%} of its filters; pruned: these removed. "
    "The figures are how many times as fast as the same runtime's dense network; dense over onnxruntime: as "
    "onnxruntime's dense network. All take turns in one run; medians over rounds. Difference: the largest from "
    "onnxruntime's answer to the same file, over the largest output. MNN with its sparse option: its converter's "
    "--detectSparseSpeedUp."
)


def _ways() -> tuple[dict[str, Open], list[str]]:
    """Return the ways to run a model, and the versions of what they need, or what is missing."""
    ways: dict[str, Open] = {"onnxruntime": _plain, "onnxruntime, our kernels": _with_kernels}
    versions, missing = [f"onnxruntime {onnxruntime.__version__}"], []
    for name in ENGINES:
        try:
            engine.open_model(name, Path("nothing.onnx"), Path())
        except MissingEngineError as error:
            missing.append(f"Not measured here: {error}.")
            continue
        except (CannotRunError, OSError):  # it is there, and the file is not
            pass
        ways[name] = functools.partial(_in_engine, name)
        versions.append(engine.engine_version(name))
    if "mnn" in ways:
        ways["mnn, sparse option"] = _sparse_mnn
    return ways, [f"Versions: {', '.join(versions)}.", *missing]


def _plain(path: Path, folder: Path) -> Run:
    return _session(onnx.load(path))


def _with_kernels(path: Path, folder: Path) -> Run:
    return _session(kernels.compile_model(onnx.load(path), make_options=lambda: session_options(1)).model)


def _session(model: onnx.ModelProto) -> Run:
    options = session_options(1)
    kernels.register(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    return lambda feeds: list(session.run(None, feeds))


def _in_engine(name: str, path: Path, folder: Path) -> Run:
    return engine.open_model(name, path, folder, threads=1)


def _sparse_mnn(path: Path, folder: Path) -> Run:
    from onnx_shift.onnx_pruner.engines import mnn

    return mnn.open_model(path, folder, 1, mnn.SPARSE)


def _models(build: Callable[..., onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    emptied = build(0.0, empty=EMPTY)
    return dict(zip(KINDS, (build(0.0), build(ZEROS), emptied, prune(emptied).model), strict=True))


def _compare(build: Callable[..., onnx.ModelProto], ways: Mapping[str, Open], folder: Path) -> list[dict[str, Any]]:
    """Return a row per way: its dense latency, how much faster the others are in each round, and how far its answers
    lie off.
    """
    feeds = {"input": np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    runs: dict[tuple[str, str], Run] = {}
    differences: dict[str, float] = {}
    for kind, model in _models(build).items():
        path = folder / f"{kind}.onnx"
        onnx.save(model, path)
        expected = _plain(path, folder)(feeds)[0]
        for way, opened in ways.items():
            own = folder / f"{kind} {way}"
            own.mkdir()
            run = runs[way, kind] = opened(path, own)
            difference = float(np.abs(run(feeds)[0] - expected).max() / np.abs(expected).max())
            differences[way] = max(differences.get(way, 0.0), difference)
    turns_ms = _in_turn({key: functools.partial(run, feeds) for key, run in runs.items()})
    rows = []
    for way in ways:
        dense = turns_ms[way, "dense"]
        rows.append(
            {
                "runtime": way,
                "dense, ms": round(float(np.median(dense)), 2),
                "dense over onnxruntime": round(float(np.median(turns_ms["onnxruntime", "dense"] / dense)), 2),
                **{kind: dense / turns_ms[way, kind] for kind in KINDS[1:]},
                "difference": float(f"{differences[way]:.0e}"),
            }
        )
    return rows


def _in_turn(calls: Mapping[tuple[str, str], Callable[[], object]]) -> dict[tuple[str, str], np.ndarray]:
    """Return the median milliseconds of each call's turns, round by round; a turn's first call is thrown away."""
    turns: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            call()
            taken: list[float] = []
            while sum(taken) < TURN_S or len(taken) < 3:
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
            turns[key].append(1000 * statistics.median(taken))
    return {key: np.array(medians) for key, medians in turns.items()}
