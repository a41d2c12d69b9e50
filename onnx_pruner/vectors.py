"""Small integer tensors worked out at run time, followed entry by entry: numbers, symbols, or not known.

A symbol is the name of a dimension, and stands for one size throughout a run of the model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Dimension = int | str | None
Shape = tuple[Dimension, ...]
Entry = int | float | bool | str | None  # a number, a symbol, or not known

LONGEST_VECTOR = 64


@dataclass(frozen=True)
class Vector:
    """A small integer (or number) tensor of rank 0 or 1, entry by entry."""

    entries: tuple[Entry, ...]
    scalar: bool = False

    @property
    def known(self) -> bool:
        return not any(entry is None or isinstance(entry, str) for entry in self.entries)


@dataclass
class Inferred:
    """Shapes and element types of tensors by name, and the vectors found on the way."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """A node with what is known of its inputs."""

    proto: onnx.NodeProto
    found: Inferred

    def attr(self, name: str, default: Any = None) -> Any:
        for attribute in self.proto.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default

    def name(self, index: int) -> str:
        return self.proto.input[index] if index < len(self.proto.input) else ""

    def shape(self, index: int) -> Shape | None:
        return self.found.shapes.get(self.name(index))

    def vector(self, index: int) -> Vector | None:
        return self.found.vectors.get(self.name(index))

    def ints(self, index: int, attribute: str) -> list[int] | None:
        value = self.attr(attribute)
        if value is not None:
            return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
        vector = self.vector(index)
        return (
            [int(v) for v in vector.entries if v is not None] if vector is not None and vector.known else None
        )


def vector_of(tensor: onnx.TensorProto) -> Vector | None:
    if len(tensor.dims) > 1 or math.prod(tensor.dims) > LONGEST_VECTOR:
        return None
    if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.FLOAT):
        return None
    return Vector(tuple(onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()), not tensor.dims)


def _shape_vector(node: Node) -> Vector | None:
    shape = node.shape(0)
    return None if shape is None else Vector(tuple(shape[node.attr("start", 0) : node.attr("end")]))


def _constant(node: Node) -> Vector | None:
    for attribute in node.proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return vector_of(value)
        if attribute.name in ("value_int", "value_float"):
            return Vector((value,), scalar=True)
        if attribute.name in ("value_ints", "value_floats"):
            return Vector(tuple(value))
    return None


def _gather(node: Node) -> Vector | None:
    source, indices = node.vector(0), node.vector(1)
    if (
        source is None
        or indices is None
        or not indices.known
        or source.scalar
        or node.attr("axis", 0) not in (0, -1)
    ):
        return None
    picks = [int(k) for k in indices.entries if k is not None]
    if any(not -len(source.entries) <= k < len(source.entries) for k in picks):
        return None
    return Vector(tuple(source.entries[k] for k in picks), indices.scalar)


def python_slice(start: int, end: int, step: int) -> slice:
    """The Python slice that ONNX's Slice means: an end far below zero with a negative step is the beginning."""
    return slice(start, None if step < 0 and end < -(1 << 30) else end, step)


def _slice_vector(node: Node) -> Vector | None:
    source, starts, ends = node.vector(0), node.ints(1, "starts"), node.ints(2, "ends")
    steps = (node.ints(4, "steps") if node.name(4) else None) or [1]
    if source is None or not starts or not ends or (node.name(4) and node.ints(4, "steps") is None):
        return None
    return Vector(source.entries[python_slice(starts[0], ends[0], steps[0])])


def _concat_vector(node: Node) -> Vector | None:
    entries: list[Entry] = []
    for k in range(len(node.proto.input)):
        part, shape = node.vector(k), node.shape(k)
        if part is not None and not part.scalar:
            entries += part.entries
        elif (
            shape is not None and len(shape) == 1 and isinstance(shape[0], int) and shape[0] <= LONGEST_VECTOR
        ):
            entries += [None] * shape[0]
        else:
            return None
    return Vector(tuple(entries))


def _as_vector(scalar: bool | None) -> Callable[[Node], Vector | None]:
    """Unsqueeze, Squeeze and the like: the same entries, as a vector or a scalar (None: as before)."""

    def rule(node: Node) -> Vector | None:
        source = node.vector(0)
        if (
            source is None
            or (scalar is not None and len(source.entries) != 1)
            or (scalar is False and not source.scalar)
        ):
            return None
        return Vector(source.entries, source.scalar if scalar is None else scalar)

    return rule


def _cast(node: Node) -> Vector | None:
    source = node.vector(0)
    if source is None or node.attr("to") not in (1, 6, 7, 10, 11):
        return None
    kind = int if node.attr("to") in (6, 7) else float
    known = tuple(e if isinstance(e, str) or e is None else kind(e) for e in source.entries)
    return Vector(known, source.scalar)


def _arithmetic(node: Node) -> Vector | None:
    operands = [node.vector(k) for k in range(len(node.proto.input))]
    if any(operand is None for operand in operands):
        return None
    vectors = [operand for operand in operands if operand is not None]
    length = max(len(vector.entries) for vector in vectors)
    if any(len(vector.entries) not in (1, length) for vector in vectors):
        return None
    spread = [vector.entries * (length if len(vector.entries) == 1 else 1) for vector in vectors]
    entries = tuple(_combine(node.proto.op_type, parts) for parts in zip(*spread, strict=True))
    return Vector(entries, all(vector.scalar for vector in vectors))


def _combine(op: str, parts: tuple[Entry, ...]) -> Entry:
    """One entry of an arithmetic operator; symbols survive where the number beside them changes nothing."""
    if op == "Where":
        return None if parts[0] is None or isinstance(parts[0], str) else parts[1] if parts[0] else parts[2]
    symbols = [part for part in parts if isinstance(part, str)]
    numbers = [part for part in parts if part is not None and not isinstance(part, str)]
    if len(symbols) + len(numbers) < len(parts):
        return None
    if symbols:
        if op == "Equal" and len(symbols) == 1 and numbers[0] < 0:
            return False  # a size is never negative
        neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(op)
        ordered = op in ("Add", "Mul") or isinstance(parts[0], str)
        return symbols[0] if len(symbols) == 1 and ordered and numbers and numbers[0] == neutral else None
    if len(numbers) > 2:
        return None
    if len(numbers) == 1 and op in ("Min", "Max"):
        return numbers[0]
    a, b = numbers[0], numbers[1] if len(numbers) > 1 else 0
    whole = isinstance(a, int) and isinstance(b, int)
    if (op == "Div" and b == 0) or (op == "Mod" and (b <= 0 or a < 0)):
        return None
    if op == "Div":
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if whole else a / b
    if op in ("Floor", "Ceil"):
        rounded = math.floor(a) if op == "Floor" else math.ceil(a)
        return rounded if whole else float(rounded)
    return ARITHMETIC[op](a, b)


ARITHMETIC: Mapping[str, Callable[[Any, Any], Entry]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Mod": lambda a, b: a % b,
    "Min": min,
    "Max": max,
    "Equal": lambda a, b: a == b,
    "Neg": lambda a, b: -a,
    "Abs": lambda a, b: abs(a),
}


def _filled(node: Node) -> Vector | None:
    sizes = node.vector(0)
    if sizes is None or not sizes.known or len(sizes.entries) != 1:
        return None
    value = node.attr("value")
    entry = 0 if value is None else onnx.numpy_helper.to_array(value).reshape(-1).tolist()[0]
    length = int(sizes.entries[0] or 0)
    return Vector((entry,) * length) if length <= LONGEST_VECTOR else None


def _reduce_prod(node: Node) -> Vector | None:
    source = node.vector(0)
    if source is None or not source.known:
        return None
    product = math.prod(v for v in source.entries if isinstance(v, int | float))
    return Vector((product,), scalar=not node.attr("keepdims", 1))


def _reshaped_vector(node: Node) -> Vector | None:
    source, target = node.vector(0), node.vector(1)
    if source is None or target is None or len(target.entries) > 1:
        return None
    return Vector(source.entries, scalar=not target.entries)


VECTORS: Mapping[str, Callable[[Node], Vector | None]] = {
    "Shape": _shape_vector,
    "Constant": _constant,
    "Gather": _gather,
    "Slice": _slice_vector,
    "Concat": _concat_vector,
    "Unsqueeze": _as_vector(False),
    "Squeeze": _as_vector(True),
    "Identity": _as_vector(None),
    "Cast": _cast,
    "Reshape": _reshaped_vector,
    "ConstantOfShape": _filled,
    "ReduceProd": _reduce_prod,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Equal", "Where"), _arithmetic),
    **dict.fromkeys(("Floor", "Ceil", "Neg", "Abs"), _arithmetic),
}


def as_array(vector: Vector, data_type: int) -> NDArray[Any] | None:
    """A vector whose entries are all numbers, as an array; else None."""
    if not vector.known:
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    return np.asarray(vector.entries[0] if vector.scalar else vector.entries, dtype)
