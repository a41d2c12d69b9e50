"""Serving over HTTP beside a bare echo, under switches, updates and load traces."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.support.results import in_words, range_of
from benchmarks.support.served import NAME, Caller, Server, echoing, header, served, together
from onnx_shift.runtime.load import Load

TITLE = "Serving over HTTP: beside an echo, under switches, updates and load traces"
MINUTES = 5

_ROUNDS, _REQUESTS = 7, 400  # of each server and number of callers, in turn
_CHECKED, _UPDATE_S = 20_000, 2.0
_SOAK = 100_000
_CALLERS = 8
_TRACE_S, _TRACE_CALLERS = 6.0, 48
_SMALL, _LARGE = {"small": 6, "medium": 8, "large": 12}, {"small": 16, "medium": 32, "large": 64}


def measure(work: Path) -> dict[str, Any]:
    cost, checked, traces = _cost(work), _under_updates(work), _traces(work)
    ratios = {key: cost[key] for key in _FIGURES}
    return {
        "rows": cost["rows"],
        "figures": {key: median(found) for key, found in ratios.items()} | checked | traces["figures"],
        "spread": {key: range_of(found) for key, found in ratios.items()},
        "tables": {"Load traces, in time by HTTP and in process": traces["rows"]},
        "notes": [
            f"Tensors of {4 * math.prod(_SHAPE)} bytes, binary. Milliseconds are medians of {_ROUNDS} rounds of "
            f"{_REQUESTS} requests, the servers in turn; in brackets their range. The echo runs on the same "
            "HTTP server and answers what it was sent. In process: ModelSwitcher.run with equal options.",
            f"{_CHECKED} requests by {_CALLERS} callers, each answer checked against the variant that it names, under "
            f"{checked['switches']:.0f} switches and {checked['updates']:.0f} updates of the portfolio. Then {_SOAK} "
            "more: resident memory after them over that after a tenth of them.",
            f"Load traces: the arrivals of `replay`, {_TRACE_S:g} seconds each, sent over HTTP: the share answered in "
            "time over the share that the same policy reaches in process.",
        ],
    }


_FIGURES = ("one_caller_ratio", "one_caller_added_ms", "eight_callers_ratio", "processor_ratio")
_SHAPE = (1, 3, 16, 16)


# --- models and policy -------------------------------------------------------------------------------


def _network(width: int) -> onnx.ModelProto:
    random = np.random.default_rng(width)
    sizes = {"w1": (width, 3, 3, 3), "w2": (width, width, 3, 3), "w3": (width, 10)}
    weights = {name: random.standard_normal(size).astype(np.float32) / width for name, size in sizes.items()}
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("ReduceMean", ["d"], ["e"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["e", "w3"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pack(path: Path, widths: dict[str, int]) -> Path:
    from onnx_shift.portfolio.pack import pack

    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name, width in widths.items():
        onnx.save(_network(width), folder / f"{name}.onnx")
    pack([folder / f"{name}.onnx" for name in widths], path)
    return path


class Alternate:
    """A policy that goes on to the next variant every 20 ms."""

    interval_s = 0.02

    def __init__(self) -> None:
        self._next = count()

    def decide(self, load: Load) -> str:
        return load.variants[next(self._next) % len(load.variants)].name


def alternate(objective_ms: float) -> Alternate:
    return Alternate()


# --- what a request costs -----------------------------------------------------------------------------------


def _cost(work: Path) -> dict[str, Any]:
    portfolio = _pack(work / "small.zip", _SMALL)
    rows = np.random.default_rng(0).standard_normal(_SHAPE, np.float32)
    times: dict[tuple[str, int], list[float]] = {}
    processor: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        servers = {
            "onnx-shift": stack.enter_context(served(work, portfolio)),
            "echo": stack.enter_context(echoing(work)),
        }
        alone = {name: _asking(Caller(server.port, rows)) for name, server in servers.items()}
        alone["in process"] = _in_process(work, portfolio, rows)
        for number in range(_ROUNDS + 1):  # the first one warms up
            found = {(name, 1): (took_ms, None) for name, took_ms in _in_turn(alone).items()}
            found |= {(name, _CALLERS): _round(server, rows) for name, server in servers.items()}
            for key, (took_ms, used_ms) in found.items() if number else ():
                times.setdefault(key, []).append(took_ms)
                if used_ms is not None:
                    processor.setdefault(key, []).append(used_ms)
    shown = [(*key, found, processor.get(key)) for key, found in times.items()]
    ours, echo = times["onnx-shift", 1], times["echo", 1]
    return {
        "rows": [
            {
                "server": name,
                "callers": callers,
                "median ms": in_words(found),
                "processor ms": in_words(used) if used else "–",
            }
            for name, callers, found, used in shown
        ],
        "one_caller_ratio": _ratios(ours, echo),
        "one_caller_added_ms": [a - b for a, b in zip(ours, times["in process", 1], strict=True)],
        "eight_callers_ratio": _ratios(times["onnx-shift", _CALLERS], times["echo", _CALLERS]),
        "processor_ratio": _ratios(processor["onnx-shift", _CALLERS], processor["echo", _CALLERS]),
    }


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _in_turn(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median milliseconds of each way to answer a request, each asked once in turn, again and again."""
    took_s: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_REQUESTS):
        for name, ask in ways.items():
            began_s = time.perf_counter()
            ask()
            took_s[name].append(time.perf_counter() - began_s)
    return {name: median(found) * 1e3 for name, found in took_s.items()}


def _round(server: Server, rows: Any) -> tuple[float, float]:
    """Return the median milliseconds of a request of `_CALLERS`, and the server's processor milliseconds for each."""
    took_s: list[float] = []

    def ask() -> None:
        caller = Caller(server.port, rows)
        ask_once, own = _asking(caller), []
        for _ in range(_REQUESTS // _CALLERS):
            began_s = time.perf_counter()
            ask_once()
            own.append(time.perf_counter() - began_s)
        caller.connection.close()
        took_s.extend(own)

    before_s = server.processor_s()
    together([ask] * _CALLERS)
    return median(took_s) * 1e3, (server.processor_s() - before_s) / len(took_s) * 1e3


def _asking(caller: Caller) -> Callable[[], None]:
    def ask() -> None:
        head, body = caller.ask()
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(body)

    return ask


def _in_process(work: Path, portfolio: Path, rows: Any) -> Callable[[], object]:
    from onnx_shift.portfolio.sessions import session_options
    from onnx_shift.runtime import ModelSwitcher

    model = ModelSwitcher(str(portfolio), session_options(1), cache=work / "cache")
    return lambda: model.run(None, {"input": rows})


# --- nothing lost, nothing wrong, no memory kept ------------------------------------------------------------


def _under_updates(work: Path) -> dict[str, Any]:
    import onnxruntime

    live, renamed = work / "live.zip", {f"{name}-new": width for name, width in _SMALL.items()}
    versions = [_pack(work / "old.zip", _SMALL), _pack(work / "new.zip", renamed)]
    rows = np.random.default_rng(0).standard_normal(_SHAPE, np.float32)
    wanted = {}
    for name, width in (*_SMALL.items(), *renamed.items()):
        session = onnxruntime.InferenceSession(_network(width).SerializeToString())
        wanted[name.encode()] = session.run(None, {"input": rows})[0]
    lost: list[str] = []
    wrong: list[bytes] = []
    answered = count()
    _replace(live, versions[0])

    def ask_until(last: int) -> Callable[[], None]:
        def ask() -> None:
            caller = Caller(server.port, rows)
            while next(answered) < last:
                try:
                    head, body = caller.ask()
                except OSError as error:
                    lost.append(repr(error))
                    caller = Caller(server.port, rows)
                    continue
                if not head.startswith(b"HTTP/1.1 200"):
                    lost.append(body.decode())
                    continue
                length = int(header(head, b"inference-header-content-length"))
                found = np.frombuffer(body[length:], np.float32)
                if not np.allclose(found, wanted[header(head, b"onnx-shift-variant")].ravel(), atol=1e-4):
                    wrong.append(head)
            caller.connection.close()

        return ask

    policy = ("--policy", "benchmarks.serving:alternate", "--allow-load")
    with served(work, live, *policy) as server:
        stop = threading.Event()

        def update() -> None:
            for number in count(1):
                if stop.wait(_UPDATE_S):
                    return
                _replace(live, versions[number % 2])
                server.ask("POST", f"/v2/repository/models/{NAME}/load")

        updates = threading.Thread(target=update)
        updates.start()
        together([ask_until(_CHECKED)] * _CALLERS)
        stop.set()
        updates.join()
        figures = {
            "lost": len(lost),
            "wrong": len(wrong),
            "switches": server.metric("onnx_shift_switches_total"),
            "updates": server.metric('onnx_shift_loads_total{result="taken"}'),
        }
    with served(work, live) as server:
        answered = count()
        together([ask_until(_SOAK // 10)] * _CALLERS)
        before = server.metric("onnx_shift_resident_bytes")
        together([ask_until(_SOAK)] * _CALLERS)
        figures["memory_growth"] = server.metric("onnx_shift_resident_bytes") / before - 1
    return figures


def _replace(target: Path, source: Path) -> None:
    from onnx_shift.files import write_bytes

    write_bytes(target, source.read_bytes())


# --- load traces --------------------------------------------------------------------------------------------


def _traces(work: Path) -> dict[str, Any]:
    from onnx_shift.portfolio.sessions import session_options
    from onnx_shift.runtime import Portfolio
    from onnx_shift.runtime.replay import replay
    from onnx_shift.runtime.trace import SHAPES, builtin_trace

    portfolio = _pack(work / "large.zip", _LARGE)
    rows = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)
    figures: dict[str, float] = {}
    table = []
    for trace in SHAPES:
        timeline = replay(
            Portfolio.open(portfolio),
            builtin_trace(trace, _TRACE_S),
            sess_options=session_options(1),
            feed={"input": rows},
            cache=work / "cache",
        )
        run, objective_ms = timeline.runs["policy"], timeline.objective_ms
        with served(work, portfolio, "--p95", str(objective_ms)) as server:
            within, larger = _drive(server, rows, run.arrived_s, objective_ms)
            switches = server.metric("onnx_shift_switches_total")
        share = run.within(objective_ms) / run.arrived_s.size
        figures[f"{trace}_in_time_ratio"] = within / share
        table.append(
            {
                "trace": trace,
                "requests": int(run.arrived_s.size),
                "in time, HTTP": f"{within:.1%}",
                "in time, in process": f"{share:.1%}",
                "largest served, HTTP": f"{larger:.1%}",
                "largest served, in process": f"{float((run.variant == len(_LARGE) - 1).mean()):.1%}",
                "switches, HTTP": int(switches),
                "switches, in process": len(run.switches),
            }
        )
    return {"figures": figures, "rows": table}


def _drive(server: Server, rows: Any, arrived_s: Any, objective_ms: float) -> tuple[float, float]:
    """Send each request when it is due; return the shares answered in time, and answered by the largest variant."""
    due, place = arrived_s.tolist(), count()
    late_ms = np.full(len(due), np.inf)
    largest = np.zeros(len(due), bool)
    callers = [Caller(server.port, rows) for _ in range(_TRACE_CALLERS)]
    for caller in callers:
        caller.ask()
    began_s = time.perf_counter()

    def work(caller: Caller) -> Callable[[], None]:
        def ask() -> None:
            while (index := next(place)) < len(due):
                time.sleep(max(0.0, due[index] - (time.perf_counter() - began_s)))
                head, _ = caller.ask()
                if head.startswith(b"HTTP/1.1 200"):
                    late_ms[index] = (time.perf_counter() - began_s - due[index]) * 1e3
                    largest[index] = header(head, b"onnx-shift-variant") == b"large"

        return ask

    together([work(caller) for caller in callers])
    return float((late_ms <= objective_ms).mean()), float(largest.mean())
