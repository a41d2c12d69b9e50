"""Inputs to try a model on, drawn from the domain that its graph declares.

Fixed dimensions are respected; a free leading axis is a batch; other free dimensions are tried over a few
sizes until the model runs. Values are normal noise at several scales, a uniform one, a constant and zero.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx_shift.onnx_pruner.verification.engines import (
    Array,
    CannotRunError,
    Feeds,
    Infer,
    Outputs,
    Source,
    VerificationError,
    graph_inputs,
)

#: Sizes tried for free dimensions, and exclusive upper bounds tried for integers. Small ones before large: what attends
#: from every pixel to every other takes gigabytes before it fails on a large one.
FREE_SIZES = (64, 32, 28, 16, 8, 4, 1, 224, 96, 128, 160, 192, 240, 256, 288, 299, 320, 384, 416, 512, 640)
#: Larger inputs are not tried: a size that a model was not made for must not take the machine's memory.
MOST_ELEMENTS = 1 << 24
#: A model that takes longer is tried on few inputs: on a large image all eight take minutes.
SLOW_SECONDS = 1.0
INTEGERS_BELOW = (100, 10, 2, 1)


@dataclass(frozen=True)
class _Probe:
    """How floating-point values are drawn, their scale, the batch size, and whether to vary free sizes."""

    kind: str
    scale: float
    batch: int
    other_size: bool = False


_PROBES = (
    _Probe("normal", 1, 1),
    _Probe("normal", 3, 1),
    _Probe("normal", 0.1, 1),
    _Probe("normal", 100, 1),
    _Probe("normal", 1, 2),
    _Probe("uniform", 1, 3, other_size=True),
    _Probe("constant", 0.5, 1),
    _Probe("constant", 0, 1),
)
_FEW_PROBES = (_PROBES[0], _PROBES[4], _PROBES[6])


@dataclass(frozen=True)
class Input:
    """One input of a graph: its element type, and per axis a size or the symbol of a free one."""

    name: str
    element_type: int
    dims: tuple[int | str, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.element_type))


@dataclass(frozen=True)
class Domain:
    """A model's inputs with one choice of sizes for free dimensions and of an upper bound for integers."""

    inputs: tuple[Input, ...]
    batch: frozenset[str]
    sizes: Mapping[str, int]
    below: int

    def draw(self, probe: _Probe, seed: int, sizes: Mapping[str, int]) -> Feeds:
        """Return an array per input; batch symbols take the probe's batch size, others those of `sizes`."""
        rng = np.random.default_rng(seed)
        chosen = {**self.sizes, **sizes, **dict.fromkeys(self.batch, probe.batch)}
        return {
            one.name: _draw(
                rng, one.dtype, [chosen[d] if isinstance(d, str) else d for d in one.dims], probe, self.below
            )
            for one in self.inputs
        }

    def other_sizes(self) -> dict[str, int]:
        """Return sizes half as large again for the free dimensions that are no batch."""
        return {symbol: size + size // 2 for symbol, size in self.sizes.items() if size > 3}


def find_domain(run: Infer, source: Source, runtime: str, seed: int) -> Domain:
    """Return sizes and integer bounds on which `run` runs; raises VerificationError when none is found."""
    reason = ""
    for domain in _domains(source.graph):
        try:
            run(domain.draw(_PROBES[0], seed, {}))
            return domain
        except CannotRunError as error:  # noqa: PERF203
            reason = reason or str(error)
    raise VerificationError(f"{source.label}: {runtime} runs it on none of the inputs tried: {reason}")


def cases(run: Infer, domain: Domain, seed: int, *, few: bool = False) -> Iterator[tuple[Feeds, Outputs]]:
    """Yield inputs with the outputs of `run`; a batch or size that the model was not made for is left out.

    `few`: three inputs in place of eight, for an evaluator that needs seconds where onnxruntime needs
    milliseconds; so, too, where one run takes longer than `SLOW_SECONDS`.
    """
    for index, probe in enumerate(_PROBES):
        if few and probe not in _FEW_PROBES:
            continue
        other = domain.other_sizes() if probe.other_size else {}
        for sizes in (other, {}) if other else ({},):
            feeds = domain.draw(probe, seed + index, sizes)
            began = time.perf_counter()
            try:
                outputs = run(feeds)
            except CannotRunError:
                continue
            few = few or time.perf_counter() - began > SLOW_SECONDS
            yield feeds, outputs
            break


def _draw(rng: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int], probe: _Probe, below: int) -> Array:
    constant = probe.kind == "constant"
    if dtype == np.object_:  # strings
        return np.full(shape, "a", dtype=object)
    if dtype == np.bool_:
        return np.full(shape, probe.scale > 0) if constant else np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        if constant:
            return np.full(shape, min(1, below - 1) if probe.scale else 0, dtype)
        # One byte is pixels, or quantised values, more often than indices.
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if dtype.itemsize == 1 else (0, below)
        return np.asarray(rng.integers(low, high, shape), dtype)
    if constant:
        return np.full(shape, probe.scale).astype(dtype)
    values = rng.standard_normal(shape) if probe.kind == "normal" else rng.random(shape)
    return np.asarray(values * probe.scale, dtype)


def _declared_inputs(graph: onnx.GraphProto) -> tuple[Input, ...]:
    found = []
    for value in graph_inputs(graph):
        if not value.type.HasField("tensor_type"):
            raise VerificationError(f"input {value.name!r} is no tensor: cannot make up values for it")
        tensor = value.type.tensor_type
        dims = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or f"{value.name}.{axis}"
            for axis, d in enumerate(tensor.shape.dim)
        )
        found.append(Input(value.name, tensor.elem_type, dims))
    return tuple(found)


def _domains(graph: onnx.GraphProto) -> Iterator[Domain]:
    """Yield choices of free sizes and integer bounds, most likely ones first."""
    inputs = _declared_inputs(graph)
    batch = frozenset(one.dims[0] for one in inputs if one.dims and isinstance(one.dims[0], str))
    free = {d for one in inputs for d in one.dims if isinstance(d, str)} - batch
    channels = {one.dims[1] for one in inputs if len(one.dims) > 2 and isinstance(one.dims[1], str)} - batch
    asked = {symbol: size for symbol, size in _asked(graph, inputs) if symbol in free}
    choices: list[tuple[frozenset[str], dict[str, int]]] = []
    for size in FREE_SIZES if free else FREE_SIZES[:1]:
        choices.append((batch, dict.fromkeys(free, size) | asked))
        choices += [
            (batch, dict.fromkeys(free, size) | dict.fromkeys(channels, n)) for n in (3, 1) if channels - asked.keys()
        ]
    if batch:  # the leading axis of an input need not be a batch
        choices += [(frozenset(), dict.fromkeys(free | batch, size)) for size in FREE_SIZES]
    integers = any(one.dtype.kind in "iu" and one.dtype.itemsize > 1 for one in inputs)
    for below in INTEGERS_BELOW if integers else (1,):
        for leading, sizes in choices:
            if not any(_is_huge(one, sizes) for one in inputs):
                yield Domain(inputs, leading, sizes, below)


def _asked(graph: onnx.GraphProto, inputs: Sequence[Input]) -> Iterator[tuple[int | str, int]]:
    """Yield what layers that read an input directly ask of its channel axis, by their weights."""
    by_name = {one.name: one for one in inputs}
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        one = by_name.get(node.input[0]) if node.input else None
        shape = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if one is None or len(shape) < 2 or len(one.dims) < 2:
            continue
        if node.op_type == "Conv":
            yield one.dims[1], shape[1] * attributes.get("group", 1)
        elif node.op_type == "Gemm" and not attributes.get("transA", 0):
            yield one.dims[1], shape[1 if attributes.get("transB", 0) else 0]
        elif node.op_type == "MatMul":
            yield one.dims[-1], shape[-2]


def _is_huge(one: Input, sizes: Mapping[str, int]) -> bool:
    chosen = any(d in sizes for d in one.dims)  # a size that the model declares is its own business
    return chosen and math.prod(sizes.get(d, 1) if isinstance(d, str) else d for d in one.dims) > MOST_ELEMENTS
