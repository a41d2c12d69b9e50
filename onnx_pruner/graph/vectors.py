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
    """A small tensor of numbers, entry by entry in row-major order: a scalar, a vector, or pads in two rows."""

    entries: tuple[Entry, ...]
    shape: tuple[int, ...]

    @staticmethod
    def of(entries: Sequence[Entry] | NDArray[np.object_]) -> "Vector":
        array = np.asarray(entries, object)
        return Vector(tuple(array.reshape(-1).tolist()), array.shape)

    @property
    def array(self) -> NDArray[np.object_]:
        return np.asarray(self.entries, object).reshape(self.shape)

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
        return [int(v) for v in vector.entries if v is not None] if vector is not None and vector.known else None


def vector_of(tensor: onnx.TensorProto) -> Vector | None:
    if math.prod(tensor.dims) > LONGEST_VECTOR:
        return None
    if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.FLOAT):
        return None
    return Vector(tuple(onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()), tuple(tensor.dims))


def _shape_vector(node: Node) -> Vector | None:
    shape = node.shape(0)
    return None if shape is None else Vector.of(shape[node.attr("start", 0) : node.attr("end")])


def _constant(node: Node) -> Vector | None:
    for attribute in node.proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return vector_of(value)
        if attribute.name in ("value_int", "value_float"):
            return Vector((value,), ())
        if attribute.name in ("value_ints", "value_floats"):
            return Vector.of(value)
    return None


def _gather(node: Node) -> Vector | None:
    source, indices = node.vector(0), node.vector(1)
    if source is None or indices is None or not indices.known or not source.shape:
        return None
    axis, picks = node.attr("axis", 0), indices.array.astype(np.int64)
    size = source.shape[axis]
    if ((picks < -size) | (picks >= size)).any():
        return None
    return Vector.of(source.array.take(picks, axis))


def python_slice(start: int, end: int, step: int) -> slice:
    """The Python slice that ONNX's Slice means: an end far below zero with a negative step is the beginning."""
    return slice(start, None if step < 0 and end < -(1 << 30) else end, step)


def _slice_vector(node: Node) -> Vector | None:
    source, starts, ends = node.vector(0), node.ints(1, "starts"), node.ints(2, "ends")
    axes = node.ints(3, "axes") if node.name(3) else node.attr("axes", range(len(starts or ())))
    steps = node.ints(4, "steps") if node.name(4) else [1] * len(starts or ())
    if source is None or not source.shape or None in (starts, ends, axes, steps):
        return None
    parts = [slice(None)] * len(source.shape)
    for axis, start, end, step in zip(axes or (), starts or (), ends or (), steps or (), strict=True):
        parts[axis] = python_slice(start, end, step)
    return Vector.of(source.array[tuple(parts)])


def _concat_vector(node: Node) -> Vector | None:
    parts: list[NDArray[np.object_]] = []
    for k in range(len(node.proto.input)):
        part, shape = node.vector(k), node.shape(k)
        sizes = [size for size in shape or () if isinstance(size, int)]
        if part is not None:
            parts.append(part.array)
        elif shape is not None and len(sizes) == len(shape) and math.prod(sizes) <= LONGEST_VECTOR:
            parts.append(np.full(sizes, None, object))
        else:
            return None
    if any(part.ndim != parts[0].ndim or not part.ndim for part in parts):
        return None
    return Vector.of(np.concatenate(parts, node.attr("axis", 0)))


def _squeezed(node: Node) -> Vector | None:
    """Unsqueeze and Squeeze."""
    source, axes = node.vector(0), node.ints(1, "axes")
    if source is None or (axes is None and (node.name(1) or node.proto.op_type == "Unsqueeze")):
        return None
    array = source.array
    if node.proto.op_type == "Unsqueeze":
        return Vector.of(np.expand_dims(array, tuple(axes or ())))
    return Vector.of(array.squeeze(None if axes is None else tuple(axes)))


def _transposed(node: Node) -> Vector | None:
    source = node.vector(0)
    return None if source is None else Vector.of(source.array.transpose(node.attr("perm")))


def _identity(node: Node) -> Vector | None:
    return node.vector(0)


def _cast(node: Node) -> Vector | None:
    source = node.vector(0)
    if source is None or node.attr("to") not in (1, 6, 7, 10, 11):
        return None
    kind = int if node.attr("to") in (6, 7) else float
    known = tuple(e if isinstance(e, str) or e is None else kind(e) for e in source.entries)
    return Vector(known, source.shape)


def _arithmetic(node: Node) -> Vector | None:
    operands = [node.vector(k) for k in range(len(node.proto.input))]
    if any(operand is None for operand in operands):
        return None
    spread = np.broadcast_arrays(*(operand.array for operand in operands if operand is not None))
    rows = zip(*(part.reshape(-1).tolist() for part in spread), strict=True)
    return Vector(tuple(_combine(node.proto.op_type, parts) for parts in rows), spread[0].shape)


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
    if sizes is None or not sizes.known:
        return None
    value, shape = node.attr("value"), tuple(int(size or 0) for size in sizes.entries)
    entry = 0 if value is None else onnx.numpy_helper.to_array(value).reshape(-1).tolist()[0]
    return Vector((entry,) * math.prod(shape), shape) if 0 <= math.prod(shape) <= LONGEST_VECTOR else None


def _reduce_prod(node: Node) -> Vector | None:
    source = node.vector(0)
    if source is None or not source.known or len(source.shape) > 1:
        return None
    product = math.prod(v for v in source.entries if isinstance(v, int | float))
    return Vector((product,), (1,) if node.attr("keepdims", 1) else ())


def _reshaped_vector(node: Node) -> Vector | None:
    source, target = node.vector(0), node.vector(1)
    if source is None or target is None:
        return None
    if len(target.entries) < 2:  # as many entries, whatever their number is
        return Vector(source.entries, (len(source.entries),) * len(target.entries))
    if not target.known or 0 in target.entries:
        return None
    return Vector.of(source.array.reshape([int(size or 0) for size in target.entries]))


VECTORS: Mapping[str, Callable[[Node], Vector | None]] = {
    "Shape": _shape_vector,
    "Constant": _constant,
    "Gather": _gather,
    "Slice": _slice_vector,
    "Concat": _concat_vector,
    "Unsqueeze": _squeezed,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Identity": _identity,
    "Cast": _cast,
    "Reshape": _reshaped_vector,
    "ConstantOfShape": _filled,
    "ReduceProd": _reduce_prod,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Equal", "Where"), _arithmetic),
    **dict.fromkeys(("Floor", "Ceil", "Neg", "Abs"), _arithmetic),
}


def follow(node: Node) -> Vector | None:
    """Return what a node puts out, where it is a small tensor of which something is known."""
    rule = VECTORS.get(node.proto.op_type)
    try:
        vector = None if rule is None else rule(node)
    except (ValueError, IndexError):  # sizes or axes that do not fit: others refuse the model
        return None
    return vector if vector is not None and len(vector.entries) <= LONGEST_VECTOR else None


def as_array(vector: Vector, data_type: int) -> NDArray[Any] | None:
    """A vector whose entries are all numbers, as an array; else None."""
    if not vector.known:
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    return np.asarray(vector.entries, dtype).reshape(vector.shape)
