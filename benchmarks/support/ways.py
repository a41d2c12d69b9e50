"""Ways to keep the variants of a network ready, and what each takes in memory (the paper's Table 5).

`python -m benchmarks.support.ways WAY REQUEST.json` is the process whose memory is measured: only what the ways
themselves need is imported here. A request, see `memory_and_switching`, says where the variants lie, smallest first.
"""

import gc
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime

_CPU = ["CPUExecutionProvider"]


class Way(Protocol):
    """A way to keep variants ready: `switch` makes one the active, `run` answers by it."""

    def switch(self, name: str) -> None: ...

    def run(self, feed: dict[str, Any]) -> Any: ...


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_session(model: Path | bytes) -> Any:
    """Return a session of one thread, all optimisations on."""
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, _options(), providers=_CPU)


def feed_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return one random image, as the variants take it."""
    return {request["input"]: np.random.default_rng(0).standard_normal(request["shape"], np.float32)}


class Ours:
    """The portfolio deflated in memory, one session over the weights of the active variant."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        from onnx_shift.runtime import ModelSwitcher

        self.model = ModelSwitcher(request["portfolio"], _options(), _CPU, cache=request["cache"])

    def switch(self, name: str) -> None:
        self.model.switch(name)

    def run(self, feed: dict[str, Any]) -> Any:
        return self.model.run(None, feed)[0]


class AllOpen:
    """An ensemble: a session of every variant."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.sessions = {name: open_session(Path(path)) for name, path in request["models"].items()}
        self.active = self.sessions[request["names"][0]]

    def switch(self, name: str) -> None:
        self.active = self.sessions[name]

    def run(self, feed: dict[str, Any]) -> Any:
        return self.active.run(None, feed)[0]


class FromDisk:
    """One session, opened again from the variant's file."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.sources: dict[str, Path | bytes] = {name: Path(path) for name, path in request["models"].items()}
        self.switch(request["names"][0])

    def switch(self, name: str) -> None:
        self.active = None
        self.active = open_session(self.sources[name])

    def run(self, feed: dict[str, Any]) -> Any:
        return self.active.run(None, feed)[0]


class FromBytes(FromDisk):
    """One session, opened again from the variant's bytes, all of which lie in memory."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.sources = {name: Path(path).read_bytes() for name, path in request["models"].items()}
        self.switch(request["names"][0])


class InPlace:
    """One full-size session whose weights are inputs; a switch overwrites them."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.deflated = {name: Path(path).read_bytes() for name, path in request["weights"].items()}
        self.session = open_session(Path(request["skeleton"]))
        self.weights = {value.name: np.zeros(value.shape, np.float32) for value in self.session.get_inputs()[1:]}

    def switch(self, name: str) -> None:
        content, start = zlib.decompress(self.deflated[name]), 0
        for array in self.weights.values():
            array[...] = np.frombuffer(content, np.float32, array.size, start).reshape(array.shape)
            start += array.nbytes

    def run(self, feed: dict[str, Any]) -> Any:
        return self.session.run(None, {**feed, **self.weights})[0]


WAYS: dict[str, Callable[[Mapping[str, Any]], Way]] = {
    "ours": Ours,
    "all sessions open": AllOpen,
    "reload from disk": FromDisk,
    "reload from bytes": FromBytes,
    "one network, weights exchanged": InPlace,
}


def _memory(way: str, request: Mapping[str, Any]) -> dict[str, float]:
    """Return resident megabytes of the imports beyond onnxruntime's, and above them: with the smallest and with the
    largest variant active, and at the peak.
    """
    idle, feed = open_session(Path(request["idle"])), feed_of(request)
    gc.collect()
    bare = _status_mb("VmRSS")
    if way == "ours":
        import onnx_shift.runtime  # noqa: F401
    before = _status_mb("VmRSS")
    ready, names, found = WAYS[way](request), request["names"], {}
    for name in (*names, *reversed(names)):
        ready.switch(name)
        ready.run(feed)
        for which, place in (("largest", -1), ("smallest", 0)):
            if name == names[place]:
                gc.collect()
                found[which] = _status_mb("VmRSS") - before
    del idle
    return {**found, "peak": _status_mb("VmHWM") - before, "imports": before - bare}


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


if __name__ == "__main__":
    json.dump(_memory(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())), sys.stdout)
