"""Inputs to try a model on, drawn from the domain that its graph declares.

Fixed dimensions are respected; a free leading axis is a batch; other free dimensions are tried over a few
sizes until the model runs. Values are normal noise at several scales, a uniform one, a constant and zero; inputs that
are sizes or counts take what the graph asks of them (`asked`).
"""

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from onnx_shift.onnx_pruner.engines.engine import CannotRunError
from onnx_shift.onnx_pruner.graph.network import graph_inputs
from onnx_shift.onnx_pruner.verification.asked import Filler, fill, fillers
from onnx_shift.onnx_pruner.verification.engines import (
    Array,
    Feeds,
    Infer,
    Outputs,
    Source,
    Value,
    VerificationError,
)

#: Sizes tried for free dimensions, and exclusive upper bounds tried for integers. Small ones before large: what attends
#: from every pixel to every other takes gigabytes before it fails on a large one.
FREE_SIZES = (64, 32, 28, 16, 8, 4, 1, 224, 96, 128, 160, 192, 240, 256, 288, 299, 320, 384, 416, 512, 640)
#: Larger inputs are not tried: a size that a model was not made for must not take the machine's memory.
MOST_ELEMENTS = 1 << 24
#: A model that takes longer is tried on few inputs: on a large image all eight take minutes.
SLOW_SECONDS = 1.0
#: Looking for inputs that the model runs on ends then.
PROBING_SECONDS = 5.0
INTEGERS_BELOW = (100, 10, 2, 1)
RANKS = (4, 2, 3, 1, 0)  # tried for inputs that state no shape


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
class Case:
    """One input to try: the probe's number, and sizes of free dimensions other than the usual ones."""

    index: int
    sizes: tuple[tuple[str, int], ...] = ()
    few: bool = False  # whether it is one of few, for a model that takes long


@dataclass(frozen=True)
class Input:
    """One input of a graph: its element type, and per axis a size or the symbol of a free one.

    `ranked` is false for an input that states no shape. `sequence`: it is a list of such tensors.
    """

    name: str
    element_type: int
    dims: tuple[int | str, ...]
    ranked: bool = True
    sequence: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.element_type))


@dataclass(frozen=True)
class Domain:
    """A model's inputs with one choice of sizes for free dimensions and of an upper bound for integers.

    `asked`: how to fill inputs that are sizes; `outputs`: the shapes that the graph states of what it puts out.
    """

    inputs: tuple[Input, ...]
    batch: frozenset[str]
    sizes: Mapping[str, int]
    below: int
    asked: Mapping[str, tuple[onnx.NodeProto, Filler]]
    outputs: Mapping[str, tuple[int, ...]]

    def feeds(self, case: Case, seed: int) -> Feeds:
        """Return the values of a case that `cases` has yielded."""
        return self.draw(_PROBES[case.index], seed + case.index, dict(case.sizes))

    def draw(self, probe: _Probe, seed: int, sizes: Mapping[str, int]) -> Feeds:
        """Return an array per input; batch symbols take the probe's batch size, others those of `sizes`."""
        rng = np.random.default_rng(seed)
        chosen = {**self.sizes, **sizes, **dict.fromkeys(self.batch, probe.batch)}
        shapes = {one.name: tuple(chosen[d] if isinstance(d, str) else d for d in one.dims) for one in self.inputs}
        return {one.name: self._value(one, rng, shapes, probe) for one in self.inputs}

    def _value(
        self, one: Input, rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]], probe: _Probe
    ) -> Value:
        shape = shapes[one.name]
        if one.sequence:
            return [_draw(rng, one.dtype, shape, probe, self.below) for _ in range(2)]
        if one.name in self.asked:
            node, filler = self.asked[one.name]
            return fill(node, filler, shape, shapes, self.outputs, rng, one.dtype)
        return _draw(rng, one.dtype, shape, probe, self.below)

    def other_sizes(self) -> dict[str, int]:
        """Return sizes half as large again for the free dimensions that are no batch."""
        return {symbol: size + size // 2 for symbol, size in self.sizes.items() if size > 3}


def find_domain(run: Infer, source: Source, runtime: str, seed: int) -> Domain:
    """Return sizes and integer bounds on which `run` runs; raises VerificationError when none is found in time."""
    reason = ""
    began = time.monotonic()
    for domain in _domains(source.graph):
        try:
            run(domain.draw(_PROBES[0], seed, {}))
            return domain
        except CannotRunError as error:
            reason = reason or str(error)
        if time.monotonic() - began > PROBING_SECONDS:
            reason += f" (and so on for {PROBING_SECONDS:.0f} s)"
            break
    raise VerificationError(f"{source.label}: {runtime} runs it on none of the inputs tried: {reason}")


def cases(run: Infer, domain: Domain, seed: int, *, few: bool = False) -> Iterator[tuple[Case, Feeds, Outputs]]:
    """Yield inputs with the outputs of `run`; a batch or size that the model was not made for is left out.

    `few`: three inputs in place of eight, for an evaluator that needs seconds where onnxruntime needs
    milliseconds; so, too, where one run takes longer than `SLOW_SECONDS`.
    """
    for index, probe in enumerate(_PROBES):
        if few and probe not in _FEW_PROBES:
            continue
        other = tuple(domain.other_sizes().items()) if probe.other_size else ()
        for sizes in (other, ()) if other else ((),):
            case = Case(index, sizes)
            feeds = domain.feeds(case, seed)
            began = time.perf_counter()
            try:
                outputs = run(feeds)
            except CannotRunError:
                continue
            few = few or time.perf_counter() - began > SLOW_SECONDS
            yield replace(case, few=few), feeds, outputs
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
    if dtype.isbuiltin == 2 and dtype.name.startswith(("int", "uint")):  # of less than a byte
        limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
        return np.asarray(rng.integers(limits.min, limits.max + 1, shape)).astype(dtype)
    if constant:
        return np.full(shape, probe.scale).astype(dtype)
    values = rng.standard_normal(shape) if probe.kind == "normal" else rng.random(shape)
    return np.asarray(values * probe.scale, dtype)


def _declared_inputs(graph: onnx.GraphProto) -> tuple[Input, ...]:
    found = []
    for value in graph_inputs(graph):
        kind = value.type
        if kind.HasField("optional_type"):
            kind = kind.optional_type.elem_type
        sequence = kind.HasField("sequence_type")
        if sequence:
            kind = kind.sequence_type.elem_type
        if not kind.HasField("tensor_type"):
            raise VerificationError(f"input {value.name!r} is no tensor: cannot make up values for it")
        tensor = kind.tensor_type
        dims = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or f"{value.name}.{axis}"
            for axis, d in enumerate(tensor.shape.dim)
        )
        found.append(Input(value.name, tensor.elem_type, dims, tensor.HasField("shape"), sequence))
    return tuple(found)


def _with_ranks(inputs: tuple[Input, ...]) -> Iterator[tuple[Input, ...]]:
    """Yield the inputs with free axes for those that state no shape, over a few ranks."""
    for rank in RANKS if not all(one.ranked for one in inputs) else RANKS[:1]:
        yield tuple(
            one if one.ranked else replace(one, dims=tuple(f"{one.name}.{axis}" for axis in range(rank)))
            for one in inputs
        )


def _domains(graph: onnx.GraphProto) -> Iterator[Domain]:
    """Yield choices of free sizes and integer bounds, most likely ones first."""
    declared = _declared_inputs(graph)
    asked = fillers(graph, [one.name for one in declared if not one.sequence])
    outputs = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in graph.output
        if all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    }
    for inputs in _with_ranks(declared):
        for batch, sizes, below in _choices(graph, inputs, asked):
            yield Domain(inputs, batch, sizes, below, asked, outputs)


def _choices(
    graph: onnx.GraphProto, inputs: tuple[Input, ...], filled: Collection[str]
) -> Iterator[tuple[frozenset[str], dict[str, int], int]]:
    """Yield batch symbols, sizes of free dimensions and bounds of integers."""
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
    drawn = [one for one in inputs if one.name not in filled]
    integers = any(one.dtype.kind in "iu" and one.dtype.itemsize > 1 for one in drawn)
    for below in INTEGERS_BELOW if integers else (1,):
        for leading, sizes in choices:
            if not any(_is_huge(one, sizes) for one in inputs):
                yield leading, sizes, below


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
