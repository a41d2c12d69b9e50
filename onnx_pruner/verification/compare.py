"""Whether two ONNX models compute the same function, as far as running both can tell.

Both models run on the same inputs (`probes`) in the same runtime (`engines`). The rule: a channel of an output may
differ by `TOLERANCE` of its scale (`difference`), or by ten times what rounding alone does to the original
(`rounding`), whichever is larger; a value that is finite in one model alone always fails. What selections read is held
to the same, and what they decide may flip where the original flips (`selection`).
"""

import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto

from onnx_shift.onnx_pruner.engines.engine import ENGINES, CannotRunError
from onnx_shift.onnx_pruner.graph.network import graph_inputs
from onnx_shift.onnx_pruner.verification.difference import ROUNDING_UNITS
from onnx_shift.onnx_pruner.verification.engines import (
    RUNTIMES,
    Model,
    Source,
    VerificationError,
    opened,
    read,
)
from onnx_shift.onnx_pruner.verification.judging import Pair, judge, watched_tensors
from onnx_shift.onnx_pruner.verification.probes import find_domain
from onnx_shift.onnx_pruner.verification.randomness import seeded

__all__ = ["TOLERANCE", "RuntimeComparison", "Verification", "VerificationError", "compare"]

#: Largest difference allowed, relative to the output's scale, by the coarsest floating type a model computes
#: in.
TOLERANCE: Mapping[int, float] = {
    TensorProto.DOUBLE: 1e-9,
    TensorProto.FLOAT: 1e-4,
    TensorProto.FLOAT16: 5e-3,
    TensorProto.BFLOAT16: 4e-2,
}
#: Distance from 1 to the next number, of the same types.
_ROUNDING_UNIT: Mapping[int, float] = {
    TensorProto.DOUBLE: 2.0**-52,
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}
#: An output that moves by fewer tolerances than this from input to input proves little.
_WEAK_BELOW_TOLERANCES = 100


@dataclass(frozen=True)
class RuntimeComparison:
    """What one runtime says; the difference and the tolerance are relative to the scale of the output's channel.

    `untold`: outputs that differ from themselves from run to run, of which nothing can be said.
    """

    runtime: str
    inputs: int
    equal: bool
    largest_difference: float
    tolerance: float
    weak: bool
    reason: str = ""
    notes: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


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
    original: Model | Source,
    pruned: Model | Source,
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    seed: int = 0,
    unread: Collection[str] = (),
) -> Verification:
    """Infer both models on the same inputs in every named runtime: are their outputs equal?

    Models are paths, ModelProtos or sources; none is changed. `unread`: inner tensors of which some channels may hold
    anything. Raises VerificationError when a file is no ONNX model, or a
    runtime is unknown, not installed, or cannot run the original.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown or not runtimes:
        raise VerificationError(f"runtime {(*unknown, 'none')[0]!r} is unknown; known: {', '.join(RUNTIMES)}")
    a, b = read(original, "the original model"), read(pruned, "the pruned model")
    changed = _signature_change(a.graph, b.graph)
    if changed:
        return Verification(False, math.inf, TOLERANCE[_coarsest_type(a.graph)], False, changed)
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
        found = tuple(_compare_on(name, a, b, seed, folder, unread) for name in runtimes)
    worst = max(found, key=lambda one: (not one.equal, one.largest_difference / one.tolerance))
    weak = any(one.weak for one in found)
    notes = [note for one in found for note in one.notes]
    if weak:
        notes.append("the outputs hardly depend on the input, so equality proves little")
    return Verification(
        equal=all(one.equal for one in found),
        largest_difference=worst.largest_difference,
        tolerance=worst.tolerance,
        weak=weak,
        reason=worst.reason,
        notes=tuple(dict.fromkeys(notes)),
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


def _coarsest_type(graph: onnx.GraphProto) -> int:
    """Return the coarsest floating type among weights, inputs, outputs and casts; float32 when there is none."""
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    for node in graph.node:
        types |= {a.t.data_type for a in node.attribute if a.HasField("t")}
        if node.op_type == "Cast":
            types |= {a.i for a in node.attribute if a.name == "to"}
    return max((kind for kind in types if kind in TOLERANCE), key=TOLERANCE.__getitem__, default=TensorProto.FLOAT)


# --- comparison ---------------------------------------------------------------------------------------------


def _compare_on(
    runtime: str, a: Source, b: Source, seed: int, folder: str, unread: Collection[str]
) -> RuntimeComparison:
    kind = _coarsest_type(a.graph)
    tolerance = TOLERANCE[kind]
    same = a.model is b.model  # nothing was pruned: all that is left to see is that the model runs
    a, b = seeded(a), seeded(b)
    watched = {} if same or runtime in ENGINES else watched_tensors(a, b, unread)
    try:
        run = opened(runtime, replace(a, watched=tuple(watched)), folder)
    except CannotRunError as error:
        raise VerificationError(f"{a.label}: {runtime} cannot run it: {error}") from error
    try:
        domain = find_domain(run, a, runtime, seed)
    except VerificationError as error:
        if not same:
            raise
        return RuntimeComparison(runtime, 0, True, 0.0, tolerance, False, notes=(f"nothing was changed; {error}",))
    if same:
        return RuntimeComparison(runtime, 1, True, 0.0, tolerance, False)
    pair = Pair(runtime, a, b, folder, domain, seed, tolerance, ROUNDING_UNITS * _ROUNDING_UNIT[kind], unread)
    judged = judge(pair, run, watched, few=runtime == "reference")
    outputs = {value.name for value in a.graph.output}
    if outputs and outputs.issubset(judged.untold):
        raise VerificationError(
            f"{a.label}: every output differs from itself from run to run: whether the models are equal cannot be told"
        )
    notes = list(judged.notes)
    notes += [f"output {name!r} differs from itself from run to run and was not compared" for name in judged.untold]
    weak = bool(outputs) and judged.moves is not None and judged.moves < _WEAK_BELOW_TOLERANCES
    return RuntimeComparison(
        runtime=runtime,
        inputs=judged.inputs,
        equal=not judged.reason,
        largest_difference=judged.difference,
        tolerance=judged.allowed,
        weak=weak and not judged.reason,
        reason=f"{judged.reason} ({runtime})" if judged.reason else "",
        notes=tuple(notes),
        untold=judged.untold,
    )
