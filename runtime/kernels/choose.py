"""Choosing, by measuring both here and now, which layers our kernels compute and which onnxruntime's."""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from onnx_shift.ort import CPU
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.kernels.find import FoundLayer, find_layers
from onnx_shift.runtime.kernels.registration import register
from onnx_shift.runtime.kernels.rewrite import leading_layers, rewrite

if TYPE_CHECKING:
    import onnx

Feeds = Mapping[str, np.ndarray[Any, Any]]
MakeOptions = Callable[[], ort.SessionOptions]
_LEAST_ZEROS = 0.5  # no layer with fewer was ever faster
_PROFILED_RUNS = 8
_ROUNDS = 9
_ENOUGH_S = 1.5  # of rounds, where a network takes long
_GAIN = 0.97  # of the time: what is not faster by more stays as it is, since it may be chance
_TOLERANCE = 1e-4  # of the output's scale

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerChoice:
    """What a layer took onnxruntime's kernels and ours, in milliseconds, and whether ours compute it."""

    name: str
    zeros: float  # share of its weights
    dense_ms: float
    sparse_ms: float
    chosen: bool


@dataclass(frozen=True)
class Choice:
    """The network with the chosen layers rewritten, or as it was; milliseconds of the whole before and after."""

    model: "onnx.ModelProto"
    layers: tuple[LayerChoice, ...]
    dense_ms: float
    sparse_ms: float

    @property
    def changed(self) -> bool:
        return any(layer.chosen for layer in self.layers)


def choose(model: "onnx.ModelProto", make_options: MakeOptions, feeds: Feeds) -> Choice:
    """Return `model`, whose shapes are inferred, with the layers rewritten that are faster so at the sizes of
    `feeds`, if the whole network then is.

    `make_options` makes the session options that will serve. Raises what onnxruntime does where the model cannot run.
    """
    found = find_layers(model)
    candidates = [layer for layer in found if layer.zeros >= _LEAST_ZEROS and not layer.depthwise]
    if not candidates:
        return Choice(model, (), 0.0, 0.0)
    batch = next((value.shape[0] for value in feeds.values() if value.ndim), 1)
    dense_us = _profile(model, make_options, feeds)
    sparse_us = _profile(rewrite(model, candidates, batch), make_options, feeds)
    measured = _measured(candidates, model, dense_us, sparse_us)
    chosen = [layer for layer, dense, sparse in measured if sparse < _GAIN * dense]
    result, times = model, (0.0, 0.0)
    if chosen:
        chosen, result, times = _fastest(model, found, [chosen, candidates], make_options, feeds, batch)
    names = {layer.name for layer in chosen}
    if joined := [layer for layer in chosen if layer.zeros < _LEAST_ZEROS]:
        sparse_us = _profile(result, make_options, feeds)
        measured += _measured(joined, model, dense_us, sparse_us)
        measured.sort(key=lambda one: one[0].node)
    choices = [
        LayerChoice(layer.name, layer.zeros, dense / 1e3, sparse / 1e3, layer.name in names)
        for layer, dense, sparse in measured
    ]
    return Choice(result, tuple(choices), *times)


def _measured(
    layers: Iterable[FoundLayer],
    model: "onnx.ModelProto",
    dense_us: Mapping[str, float],
    sparse_us: Mapping[str, float],
) -> list[tuple[FoundLayer, float, float]]:
    """Each layer with the microseconds that it took onnxruntime's kernels, and ours."""
    return [(layer, _share(layer, dense_us, model), sparse_us.get(layer.name, 0.0)) for layer in layers]


def _fastest(
    model: "onnx.ModelProto",
    found: Sequence[FoundLayer],
    choices: Sequence[list[FoundLayer]],
    make_options: MakeOptions,
    feeds: Feeds,
    batch: int,
) -> tuple[list[FoundLayer], "onnx.ModelProto", tuple[float, float]]:
    """Which of the choices of layers makes the whole network fastest, none where it is as fast as it was; the network
    with them rewritten; and milliseconds before and after.

    Each choice is tried with the dense layers, too, that hand on to layers of ours alone, such as the first: those then
    need not copy what they read.
    """
    tried: dict[tuple[int, ...], list[FoundLayer]] = {}
    for choice in choices:
        for layers in (choice, [*choice, *leading_layers(model, found, choice)]):
            tried[tuple(sorted(layer.node for layer in layers))] = layers
    networks = [model, *(rewrite(model, layers, batch) for layers in tried.values())]
    sessions = [_session(network, make_options) for network in networks]
    taken = _in_turn(sessions, feeds)
    best = min(range(1, len(taken)), key=taken.__getitem__)
    if taken[best] < _GAIN * taken[0] and _answer_alike([sessions[0], sessions[best]], feeds):
        return list(tried.values())[best - 1], networks[best], (taken[0], taken[best])
    return [], model, (taken[0], taken[best])


def random_feeds(
    inputs: Iterable[Any], batch: int = 1, shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> dict[str, np.ndarray[Any, Any]]:
    """Values for a session's `inputs`: normal floats, empty strings, zeros of other types; the first free dimension is
    `batch`, others 1. Raises KernelsError for an input that is no tensor of a type numpy knows.
    """
    random = np.random.default_rng(0)
    feeds = {}
    for value in inputs:
        free = [batch, *[1] * len(value.shape)]
        sizes = shapes.get(value.name) or [
            size if isinstance(size, int) else free[place] for place, size in enumerate(value.shape)
        ]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        numpy_type = {"float": "float32", "double": "float64"}.get(kind, kind)
        try:
            if numpy_type.startswith("float"):
                feeds[value.name] = random.standard_normal(sizes).astype(numpy_type)
            else:
                feeds[value.name] = np.full(sizes, "", object) if kind == "string" else np.zeros(sizes, numpy_type)
        except TypeError as error:
            raise KernelsError(f"{value.name}: is a {value.type}, of which no example can be made") from error
    return feeds


def _session(model: "onnx.ModelProto", make_options: MakeOptions) -> ort.InferenceSession:
    options = make_options()
    register(options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])


def _profile(model: "onnx.ModelProto", make_options: MakeOptions, feeds: Feeds) -> dict[str, float]:
    """Microseconds of each node of the optimised graph, by its name less what onnxruntime adds to it."""

    def options() -> ort.SessionOptions:
        chosen = make_options()
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder) / "profile")
        return chosen

    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
        session = _session(model, options)
        for _ in range(_PROFILED_RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    taken: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
            taken.setdefault(name, []).append(event["dur"])
    return {name: statistics.quantiles(times, n=4)[0] for name, times in taken.items() if len(times) > 1}


def _share(layer: FoundLayer, microseconds: Mapping[str, float], model: "onnx.ModelProto") -> float:
    """What the nodes that `layer` stands for took: onnxruntime names those it fuses by one of them or its output."""
    names = {layer.name}
    for index in layer.covered:
        node = model.graph.node[index]
        names.update((node.name, *node.output))
    return sum(microseconds.get(name, 0.0) for name in names if name)


def _answer_alike(sessions: Sequence[ort.InferenceSession], feeds: Feeds) -> bool:
    """Whether both answer the same up to rounding: what does not is a defect of ours, and is not served."""
    for dense, sparse in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        if isinstance(dense, np.ndarray) and dense.dtype.kind == "f":
            scale = np.abs(dense[np.isfinite(dense)]).max(initial=0.0)
            if not np.allclose(dense, sparse, rtol=0, atol=_TOLERANCE * scale, equal_nan=True):
                _log.error("the sparse kernels' answers differ from the dense ones: they are not used")
                return False
    return True


def _in_turn(sessions: Sequence[ort.InferenceSession], feeds: Feeds) -> list[float]:
    """Milliseconds of a run of each session, the median of rounds in which they take turns."""
    taken: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        session.run(None, feeds)
    begin = time.perf_counter()
    for _ in range(_ROUNDS):
        for times, session in zip(taken, sessions, strict=True):
            start = time.perf_counter()
            session.run(None, feeds)
            times.append((time.perf_counter() - start) * 1e3)
        if time.perf_counter() - begin > _ENOUGH_S and len(taken[0]) >= 3:
            break
    return [statistics.median(times) for times in taken]
