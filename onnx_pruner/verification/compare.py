"""Whether two ONNX models compute the same function, as far as running both can tell.

Both models run on the same inputs (`verification.probes`) in the same runtime (`verification.engines`). The
rule: an output may differ by `TOLERANCE` of its scale, or by ten times the difference that
onnxruntime's own optimisation makes on the original, whichever is larger; a value that is finite in one model
alone always fails.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnx_shift.onnx_pruner.verification.engines import (
    RUNTIMES,
    Array,
    CannotRunError,
    Feeds,
    Infer,
    Model,
    Outputs,
    Source,
    VerificationError,
    graph_inputs,
    read,
)
from onnx_shift.onnx_pruner.verification.probes import cases, find_domain

__all__ = ["TOLERANCE", "RuntimeComparison", "Verification", "VerificationError", "compare"]

#: Largest difference allowed, relative to the output's scale, by the coarsest floating type a model computes
#: in.
TOLERANCE: Mapping[int, float] = {
    TensorProto.DOUBLE: 1e-9,
    TensorProto.FLOAT: 1e-4,
    TensorProto.FLOAT16: 5e-3,
    TensorProto.BFLOAT16: 4e-2,
}
#: Share of an integer output's elements that may flip: rounding decides near-ties of ArgMax and its kind.
FLIPPED_SHARE = 1e-3
#: How much larger than the difference of onnxruntime's own optimisation a difference may be.
_SLACK = 10
#: An output that moves by fewer tolerances than this from input to input proves little.
_WEAK_BELOW_TOLERANCES = 100


@dataclass(frozen=True)
class RuntimeComparison:
    """What one runtime says; the difference and the tolerance are relative to the output's scale."""

    runtime: str
    inputs: int
    equal: bool
    largest_difference: float
    tolerance: float
    weak: bool
    reason: str = ""


@dataclass(frozen=True)
class Verification:
    """Whether two models agree, the largest difference over all runtimes and the tolerance it was held to.

    `weak` says that the outputs hardly depend on the input, so that equality proves little; `reason` says why
    the models are not equal.
    """

    equal: bool
    largest_difference: float
    tolerance: float
    weak: bool
    reason: str = ""
    notes: tuple[str, ...] = ()
    runtimes: tuple[RuntimeComparison, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; an infinite difference (shapes or finiteness differ) becomes None."""
        return dict(_without_infinity(asdict(self)))


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare(
    original: Model,
    pruned: Model,
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    seed: int = 0,
) -> Verification:
    """Run both models on the same inputs in every named runtime: are their outputs equal?

    Models are paths or ModelProtos, neither is changed. Raises VerificationError when a file is no ONNX model, or a
    runtime is unknown, not installed, or cannot run the original.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown or not runtimes:
        raise VerificationError(f"runtime {(*unknown, 'none')[0]!r} is unknown; known: {', '.join(RUNTIMES)}")
    a, b = read(original, "the original model"), read(pruned, "the pruned model")
    changed = _signature_change(a.graph, b.graph)
    if changed:
        return Verification(False, math.inf, _tolerance(a.graph), False, changed)
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
        found = tuple(_compare_on(name, a, b, seed, folder) for name in runtimes)
    worst = max(found, key=lambda one: (not one.equal, one.largest_difference / one.tolerance))
    weak = any(one.weak for one in found)
    return Verification(
        equal=all(one.equal for one in found),
        largest_difference=worst.largest_difference,
        tolerance=worst.tolerance,
        weak=weak,
        reason=worst.reason,
        notes=("the outputs hardly depend on the input, so equality proves little",) if weak else (),
        runtimes=found,
    )


# --- signatures and tolerances ------------------------------------------------------------------------------


def _signature_change(a: onnx.GraphProto, b: onnx.GraphProto) -> str:
    """Say how inputs or outputs differ in name, order, type or shape; an empty string when they do not."""
    for kind, before, after in (
        ("input", graph_inputs(a), graph_inputs(b)),
        ("output", list(a.output), list(b.output)),
    ):
        if [value.name for value in before] != [value.name for value in after]:
            return f"{kind}s are {_names(before)} in one model and {_names(after)} in the other"
        for x, y in zip(before, after, strict=True):
            if x.type != y.type:
                return f"{kind} {x.name!r} is {_type_text(x)} in one model and {_type_text(y)} in the other"
    return ""


def _names(values: Sequence[onnx.ValueInfoProto]) -> str:
    return ", ".join(repr(value.name) for value in values) or "none"


def _type_text(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value"))
    tensor = value.type.tensor_type
    dims = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    return f"{TensorProto.DataType.Name(tensor.elem_type).lower()}[{', '.join(dims)}]"


def _tolerance(graph: onnx.GraphProto) -> float:
    """Return the tolerance of the coarsest floating type among weights, inputs, outputs and casts."""
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    for node in graph.node:
        types |= {a.t.data_type for a in node.attribute if a.HasField("t")}
        if node.op_type == "Cast":
            types |= {a.i for a in node.attribute if a.name == "to"}
    return max((TOLERANCE[kind] for kind in types if kind in TOLERANCE), default=TOLERANCE[TensorProto.FLOAT])


# --- comparison ---------------------------------------------------------------------------------------------


def _compare_on(runtime: str, a: Source, b: Source, seed: int, folder: str) -> RuntimeComparison:
    tolerance = _tolerance(a.graph)
    try:
        run_a = RUNTIMES[runtime](a, folder)
    except CannotRunError as error:
        raise VerificationError(f"{a.label}: {runtime} cannot run it: {error}") from error
    domain = find_domain(run_a, a, runtime, seed)
    names = [value.name for value in a.graph.output]
    baseline = _Baseline(runtime, a, folder)
    first: Outputs = []
    worst, worst_tolerance, how, count, moves = 0.0, tolerance, "", 0, 0.0

    def unequal(reason: str, difference: float = math.inf, allowed: float = tolerance) -> RuntimeComparison:
        return RuntimeComparison(runtime, count, False, difference, allowed, False, f"{reason} ({runtime})")

    same = a.model is b.model  # nothing was pruned: all that is left to see is that the model runs
    try:
        run_b = run_a if same else RUNTIMES[runtime](b, folder)
        for feeds, left in cases(run_a, domain, seed, few=same or runtime == "reference"):
            count += 1
            right = left if same else run_b(feeds)
            if len(left) != len(right):
                return unequal(f"{len(left)} outputs became {len(right)}")
            # The first outputs say what is usual; a sequence may have more elements for another batch.
            first = [*first, *left[len(first) :]]
            for index, (x, y) in enumerate(zip(left, right, strict=True)):
                # An output that happens to vanish (a zero input) is rounding noise: hold it to the usual
                # scale.
                scale = max(_scale(x), 1e-3 * _scale(first[index]))
                difference, allowed = _difference(x, y, scale), tolerance if _is_float(x) else FLIPPED_SHARE
                if allowed < difference < math.inf:
                    allowed = max(allowed, _SLACK * baseline.difference(feeds, left, index, scale))
                if difference / allowed > worst / worst_tolerance:
                    worst, worst_tolerance = difference, allowed
                    name = names[index] if len(names) == len(left) else str(index)
                    how = f"output {name!r} {_how(difference, allowed)}"
                moves = max(moves, _movement(first[index], x) / allowed)
    except CannotRunError as error:
        return unequal(f"the second model cannot be run: {error}")
    if worst > worst_tolerance:
        return unequal(how, worst, worst_tolerance)
    weak = bool(a.graph.output) and moves < _WEAK_BELOW_TOLERANCES
    return RuntimeComparison(runtime, count, True, worst, worst_tolerance, weak)


def _how(difference: float, allowed: float) -> str:
    if difference < math.inf:
        return f"differs by {difference:.1e} of its scale where {allowed:.0e} is allowed"
    return "differs in shape, in type or in where it is finite"


class _Baseline:
    """How much rounding alone changes: the original run in another way, built only when a difference asks for it.

    That is onnxruntime with all optimisations; for other runtimes, which have no such switch, onnxruntime
    without.
    """

    def __init__(self, runtime: str, original: Source, folder: str) -> None:
        self._optimise = runtime == "onnxruntime"
        self._original = original
        self._folder = folder
        self._run: Infer | None = None

    def difference(self, feeds: Feeds, outputs: Outputs, index: int, scale: float) -> float:
        """Return how far output `index` moves, over `scale`; 0 where the other way cannot tell."""
        try:
            if self._run is None:
                self._run = RUNTIMES["onnxruntime"](self._original, self._folder, optimise=self._optimise)
            other = self._run(feeds)
        except CannotRunError:
            return 0.0
        difference = _difference(outputs[index], other[index], scale)
        return difference if difference < math.inf else 0.0


def _is_float(x: Array) -> bool:
    return x.dtype.kind in "fV"  # V: the extension types bfloat16 and float8


def _scale(x: Array) -> float:
    """Return the largest finite magnitude, 1e-12 at least."""
    if not _is_float(x):
        return 1.0
    values = np.abs(x.astype(np.float64))
    return float(np.max(values, where=np.isfinite(values), initial=1e-12))


def _difference(x: Array, y: Array, scale: float) -> float:
    """Return the largest |x - y| / `scale`; of integers the share that differs; inf if not comparable."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return math.inf
    if not _is_float(x):
        return float(np.mean(x != y)) if x.size else 0.0
    x, y = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)):
        return math.inf
    return float(np.max(np.abs(x[finite] - y[finite]), initial=0.0)) / scale


def _movement(first: Array, x: Array) -> float:
    """Return how far this output is from that of the first input, over its scale."""
    moved = _difference(first, x, _scale(x)) if first.shape == x.shape else 0.0
    return moved if moved < math.inf else 1.0
