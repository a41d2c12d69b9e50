"""What a switch costs, whether callers notice it, and what a portfolio takes in memory.

Each part runs in a process of its own, so that nothing of one is resident in another: `python -m benchmarks.switching
PART PROVIDER PORTFOLIO MODEL...` prints its figures as JSON.
"""

import gc
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.support.results import in_words, range_of
from onnx_shift.ort import CPU

TITLE = "Switching: cost, stall, memory, soak"
MINUTES = 6

_ROUNDS = 7
_IMPORTS = 24  # they last a tenth of a second and vary by as much as is asked
_WINDOW_S = 3.0
_WINDOWS = 6
_BLOCKS = 3  # each of this many windows
# Time on a graphics card is dear, and answers are quick.
_ROUNDS_ON_DEVICE, _WINDOWS_ON_DEVICE, _WINDOW_ON_DEVICE_S = 5, 2, 2.0
_SOAK_SWITCHES = 5_000


def measure(work: Path) -> dict[str, Any]:
    """Measure every part; see the folder's docstring for what is returned."""
    from benchmarks.switching_models import resnet_portfolio, vgg_portfolio

    vgg, resnet = vgg_portfolio(work), resnet_portfolio(work)
    costs = {"vgg": part("cost", work, vgg), "resnet50": part("cost", work, resnet)}
    stall, memory = part("stall", work, vgg), part("memory", work, vgg)
    everything_open = part("everything-open", work, vgg)["held_mb"]
    soak = part("soak", work, vgg)
    ratios = {f"{model}_{name}": cost[name] for model, cost in costs.items() for name in ("cost_ratio", "build_ratio")}
    ratios["import_ratio"] = _import_ratios()
    ratios["stall_added_ms"] = stall["added_ms"]
    figures = {name: median(found) for name, found in ratios.items()} | {
        "failed_or_wrong": stall["failed_or_wrong"],
        "memory_smallest_active": memory["smallest_active_mb"] / everything_open,
        "memory_largest_active": memory["largest_active_mb"] / everything_open,
        "inactive_over_deflated": memory["inactive_over_deflated"],
        "soak_growth": soak["growth"],
    }
    return {
        "rows": [row for cost in costs.values() for row in cost["rows"]],
        "figures": figures,
        "spread": {name: range_of(found) for name, found in ratios.items()},
        "notes": [
            "Milliseconds are medians of "
            f"{_ROUNDS} rounds, ours and the plain way in turn, one thread per inference; in brackets the range.",
            "The plain way: zlib, InferenceSession over the bytes, first answer. Ours: libdeflate over the processors "
            "that no request uses, a session over the graph optimised on this device, first answer.",
            f"Stall: two threads ask without pause, windows of {_WINDOW_S:g} s in turn with and without switching; "
            "without it a thread inflates as much, and the same variants serve. Of each of "
            f"{_BLOCKS} blocks of {_WINDOWS} windows the 99.9th percentiles, and of what they differ by the median.",
            f"Soak: resident memory after {_SOAK_SWITCHES} switches over that after 100, medians of ten samples.",
        ],
        "details": {
            "cost": costs,
            "stall": stall,
            "memory": memory,
            "soak": soak,
            "everything_open_mb": everything_open,
        },
    }


def part(name: str, work: Path, portfolio: tuple[Path, list[Path]], provider: str = CPU) -> dict[str, Any]:
    """Return the figures of one part, measured in a process of its own under an execution provider."""
    files = map(str, (portfolio[0], *portfolio[1]))
    arguments = [sys.executable, "-m", "benchmarks.switching", name, provider, *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ONNX_SHIFT_CACHE": str(work / "cache")}
    output = subprocess.run(arguments, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _opened(provider: str, portfolio: str) -> tuple[Any, list[str]]:
    from onnx_shift.runtime import ModelSwitcher

    switcher = ModelSwitcher(portfolio, _options(), [provider])
    names = [variant.name for variant in switcher.portfolio]
    for name in names:
        switcher.switch(name)
    return switcher, names


def _feed(model: Any, seed: int) -> dict[str, Any]:
    (signature,) = model.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in signature.shape]
    return {signature.name: np.random.default_rng(seed).standard_normal(shape, np.float32)}


def _close(found: Any, wanted: Any) -> bool:
    """Whether two answers are of one variant where each of its sessions may choose other kernels for itself."""
    return bool(np.abs(found - wanted).max() <= 0.01 * np.abs(wanted).max())


def _resident_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def _cost(provider: str, portfolio: str, models: list[str]) -> dict[str, Any]:
    import onnxruntime

    switcher, names = _opened(provider, portfolio)
    feed = _feed(switcher, 0)
    deflated = {Path(model).stem: zlib.compress(Path(model).read_bytes(), 6) for model in models}
    ours: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    plain: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(_ROUNDS if provider == CPU else _ROUNDS_ON_DEVICE):
        for name in names:
            switcher.switch(names[0] if name != names[0] else names[-1])
            began = time.perf_counter()
            record = switcher.switch(name)
            switcher.run(None, feed)
            whole_ms = (time.perf_counter() - began) * 1e3
            ours[name].append((whole_ms, whole_ms - record.inflate_ms))
            began = time.perf_counter()
            raw = zlib.decompress(deflated[name])
            inflated = time.perf_counter()
            session = onnxruntime.InferenceSession(raw, _options(), providers=[provider])
            session.run(None, feed)
            ended = time.perf_counter()
            plain[name].append(((ended - began) * 1e3, (ended - inflated) * 1e3))
            del session
    rows = [
        {
            "variant": name,
            "switch ms": in_words(whole for whole, _ in ours[name]),
            "plain ms": in_words(whole for whole, _ in plain[name]),
            "switch without inflating ms": in_words(build for _, build in ours[name]),
            "plain without inflating ms": in_words(build for _, build in plain[name]),
        }
        for name in names
    ]

    def ratios(index: int) -> list[float]:
        """Of each round, the time of switches to all variants over the plain way's."""
        ours_ms, plain_ms = (np.array([times[name] for name in names])[..., index] for times in (ours, plain))
        return list(ours_ms.sum(0) / plain_ms.sum(0))

    by_variant = {name: median(a / b for (a, _), (b, _) in zip(ours[name], plain[name], strict=True)) for name in names}
    return {"rows": rows, "cost_ratio": ratios(0), "build_ratio": ratios(1), "ratio_by_variant": by_variant}


def _stall(provider: str, portfolio: str, models: list[str]) -> dict[str, Any]:
    switcher, names = _opened(provider, portfolio)
    feeds = [_feed(switcher, seed) for seed in range(2)]
    same = np.array_equal if provider == CPU else _close
    windows, window_s = (_WINDOWS, _WINDOW_S) if provider == CPU else (_WINDOWS_ON_DEVICE, _WINDOW_ON_DEVICE_S)
    wanted = []
    for name in names:
        switcher.switch(name)
        wanted.append([switcher.run(None, feed)[0] for feed in feeds])
    wrong: list[str] = []

    def ask(index: int, stop: threading.Event, gaps: list[float]) -> None:
        last = time.perf_counter()
        while not stop.is_set():
            try:
                answer = switcher.run(None, feeds[index])[0]
                if not any(same(answer, each[index]) for each in wanted):
                    wrong.append("another answer")
            except Exception as error:  # noqa: BLE001 - every failure counts
                wrong.append(repr(error))
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    def window(work: Callable[[], object]) -> list[float]:
        stop, gaps = threading.Event(), [[], []]  # type: ignore[var-annotated]
        threads = [threading.Thread(target=ask, args=(index, stop, gaps[index])) for index in range(2)]
        for thread in threads:
            thread.start()
        end = time.perf_counter() + window_s
        while time.perf_counter() < end:
            work()
        stop.set()
        for thread in threads:
            thread.join()
        return gaps[0] + gaps[1]

    blob = zlib.compress(Path(models[0]).read_bytes(), 6)
    size_bytes = Path(models[0]).stat().st_size
    order, answers, slowest_ms = cycle(names), 0, []
    switches: list[object] = []
    for _ in range(_BLOCKS):
        control, busy = [], []
        for index in range(windows):
            switcher.switch(names[index % len(names)])
            control += window(lambda: zlib.decompress(blob, 15, size_bytes))
            busy += window(lambda: switches.append(switcher.switch(next(order))))
        answers += len(busy)
        slowest_ms.append([float(np.quantile(gaps, 0.999)) * 1e3 for gaps in (busy, control)])
    return {
        "answers": answers,
        "switches": len(switches),
        "failed_or_wrong": len(wrong),
        "p99.9_ms": slowest_ms,
        "added_ms": [ours - plain for ours, plain in slowest_ms],
    }


def _memory(provider: str, portfolio: str, models: list[str]) -> dict[str, Any]:
    import onnx_shift.runtime  # noqa: F401 - what it takes is no part of the portfolio's memory

    held_mb = _held_mb(provider)
    switcher, names = _opened(provider, portfolio)
    feed = _feed(switcher, 0)
    found = {}
    for key, name, other in (("largest", names[-1], names[0]), ("smallest", names[0], names[-1])):
        for _ in range(2):
            switcher.switch(other)
            switcher.switch(name)
            switcher.run(None, feed)
        found[f"{key}_active_mb"] = held_mb()
    held = switcher.portfolio.stored_bytes
    deflated = sum(variant.deflated_bytes for variant in switcher.portfolio)
    return {**found, "inactive_over_deflated": held / deflated}


def _everything_open(provider: str, portfolio: str, models: list[str]) -> dict[str, Any]:
    import onnxruntime

    held_mb = _held_mb(provider)
    sessions = [onnxruntime.InferenceSession(model, _options(), providers=[provider]) for model in models]
    for session in sessions:
        session.run(None, _feed(session, 0))
    return {"held_mb": held_mb()}


def _held_mb(provider: str) -> Callable[[], float]:
    """Return what tells the megabytes that this process holds more than now: resident, or on the graphics card."""
    if provider == CPU:
        start_mb = _resident_mb()
        return lambda: _resident_mb() - start_mb
    import onnxruntime

    from onnx_shift.runtime.session import IDENTITY_MODEL

    session = onnxruntime.InferenceSession(IDENTITY_MODEL, _options(), providers=[provider])
    # The libraries and the device's context are there from now on.
    session.run(None, {"x": np.zeros(1, np.float32)})
    start_mb = _device_mb()
    return lambda: _device_mb() - start_mb


def _device_mb() -> float:
    """Return the megabytes in use on the graphics card, by anybody."""
    gc.collect()
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    found = subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(found.split()[0]) * 1.048576


def _soak(provider: str, portfolio: str, models: list[str]) -> dict[str, Any]:
    switcher, names = _opened(provider, portfolio)
    feed, order = _feed(switcher, 0), cycle(names)

    def sample() -> float:
        samples = []
        for _ in range(10):
            for _ in range(10):
                switcher.switch(next(order))
                switcher.run(None, feed)
            switcher.switch(names[0])
            samples.append(_resident_mb())
        return median(samples)

    before = sample()
    for _ in range(_SOAK_SWITCHES):
        switcher.switch(next(order))
    after = sample()
    return {"before_mb": before, "after_mb": after, "growth": after / before - 1}


def _import_ratios() -> list[float]:
    """Return the time to import the runtime over that to import onnxruntime and numpy alone, pair by pair."""

    def seconds(statement: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - began

    pairs = [(seconds("import onnx_shift.runtime"), seconds("import onnxruntime, numpy")) for _ in range(_IMPORTS + 1)]
    return [ours / plain for ours, plain in pairs[1:]]  # the first one reads the files from the disk


_PARTS = {
    "cost": _cost,
    "stall": _stall,
    "memory": _memory,
    "everything-open": _everything_open,
    "soak": _soak,
}

if __name__ == "__main__":
    print(json.dumps(_PARTS[sys.argv[1]](sys.argv[2], sys.argv[3], sys.argv[4:])))
