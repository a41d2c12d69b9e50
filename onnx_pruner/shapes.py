"""Shapes where ONNX's own inference stops: sizes worked out at run time from Shape, Gather, Concat and arithmetic.

Exported networks reshape by such sub-graphs, with the batch size unknown. Here small integer tensors are followed as
vectors of numbers and symbols (names of dimensions), and shapes are completed from them; ONNX's inference then goes
on from there. A symbol stands for one size throughout a run of the model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference

Dimension = int | str | None
Shape = tuple[Dimension, ...]
Entry = int | float | bool | str | None  # a number, a symbol, or not known

LONGEST_VECTOR = 64
MOST_ROUNDS = 12
SAME_SHAPE = frozenset(
    [
        "BatchNormalization",
        "Cast",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Mish",
        "Neg",
        "PRelu",
        "Relu",
        "Reciprocal",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Tanh",
        "QuantizeLinear",
        "DequantizeLinear",
        "GroupNormalization",
        "CumSum",
        "Abs",
        "Round",
        "Floor",
        "Ceil",
        "Not",
    ]
)
BROADCASTS = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Where",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Equal",
        "Greater",
        "Less",
        "And",
        "Or",
        "Mod",
    ]
)


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


def infer(model: onnx.ModelProto) -> Inferred:
    """Infer all shapes of a model (its value_info grows). Raises what `onnx.shape_inference` raises."""
    found = _onnx_inference(model)
    for _ in range(MOST_ROUNDS):
        completed = _complete(model.graph, found)
        if not completed:
            break
        stated = {info.name: k for k, info in enumerate(model.graph.value_info)}
        for name in completed:
            info = onnx.helper.make_tensor_value_info(name, found.types.get(name, 1), found.shapes[name])
            if name in stated:
                model.graph.value_info[stated[name]].CopyFrom(info)
            else:
                model.graph.value_info.append(info)
        found = _onnx_inference(model)
    _complete(model.graph, found)
    return found


def _onnx_inference(model: onnx.ModelProto) -> Inferred:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = Inferred()
    for info in (*graph.value_info, *graph.output, *graph.input):
        if info.type.HasField("tensor_type"):
            found.types[info.name] = info.type.tensor_type.elem_type
            if info.type.tensor_type.HasField("shape"):
                found.shapes[info.name] = tuple(_dimension(dim) for dim in info.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        found.types[tensor.name] = tensor.data_type
        found.shapes[tensor.name] = tuple(tensor.dims)
        if vector := _vector_of(tensor):
            found.vectors[tensor.name] = vector
    return found


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dimension:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) or None


def _vector_of(tensor: onnx.TensorProto) -> Vector | None:
    if len(tensor.dims) > 1 or math.prod(tensor.dims) > LONGEST_VECTOR:
        return None
    if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.FLOAT):
        return None
    return Vector(tuple(onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()), not tensor.dims)


@dataclass(frozen=True)
class _Node:
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


def _complete(graph: onnx.GraphProto, found: Inferred) -> list[str]:
    """Follow vectors and complete shapes, in place; returns the tensors whose shape is now better known."""
    completed = []
    for proto in graph.node:
        if proto.domain not in ("", "ai.onnx") or not proto.output:
            continue
        node, name = _Node(proto, found), proto.output[0]
        evaluate = VECTORS.get(proto.op_type)
        if (
            evaluate is not None
            and (vector := evaluate(node)) is not None
            and len(vector.entries) <= LONGEST_VECTOR
        ):
            found.vectors[name] = vector
            found.shapes.setdefault(name, () if vector.scalar else (len(vector.entries),))
        known = found.shapes.get(name)
        if known is not None and None not in known and not any(_invented(size) for size in known):
            continue
        better = _shape(node)
        if better is None or (known is not None and len(known) != len(better)):
            continue
        merged = tuple(
            b if k is None or _invented(k) else k for k, b in zip(known or better, better, strict=True)
        )
        merged = tuple(k if b is None else b for k, b in zip(known or better, merged, strict=True))
        if merged != known:
            found.shapes[name] = merged
            found.types.setdefault(name, found.types.get(proto.input[0], 1) if proto.input else 1)
            completed.append(name)
    return completed


def _invented(size: Dimension) -> bool:
    """Whether a symbol was made up by ONNX's inference, so that a better one may take its place."""
    return isinstance(size, str) and size.startswith("unk__")


# --- shapes ----------------------------------------------------------------------------------------------------


def _shape(node: _Node) -> Shape | None:
    op, first = node.proto.op_type, node.shape(0)
    if op in SAME_SHAPE:
        return first
    if op in BROADCASTS:
        return _broadcast([node.shape(k) for k in range(len(node.proto.input))])
    rule = SHAPES.get(op)
    return None if rule is None else rule(node)


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    if any(shape is None for shape in shapes):
        return None
    rank = max(len(shape or ()) for shape in shapes)
    padded = [(1,) * (rank - len(shape or ())) + tuple(shape or ()) for shape in shapes]
    result: list[Dimension] = []
    for sizes in zip(*padded, strict=True):
        others = {size for size in sizes if size != 1}
        numbers = [size for size in others if isinstance(size, int)]
        result.append(
            1 if not others else numbers[0] if numbers else others.pop() if len(others) == 1 else None
        )
    return tuple(result)


def _reshape(node: _Node) -> Shape | None:
    source, target = node.shape(0), node.vector(1)
    if target is None:
        return None
    sizes: list[Dimension] = []
    for k, entry in enumerate(target.entries):
        copies = entry == 0 and not isinstance(entry, str) and not node.attr("allowzero", 0)
        if copies:
            sizes.append(source[k] if source is not None and k < len(source) else None)
        else:
            sizes.append(entry if isinstance(entry, str) or entry is None else int(entry))
    if -1 in sizes:
        at = sizes.index(-1)
        sizes[at] = None if source is None else quotient(source, [*sizes[:at], *sizes[at + 1 :]])
    return tuple(sizes)


def quotient(sizes: Sequence[Dimension], others: Sequence[Dimension]) -> Dimension:
    """The product of `sizes` over that of `others`, if it is one number or one symbol."""
    left = list(sizes)
    divisor = 1
    for size in others:
        if isinstance(size, int):
            divisor *= size
        elif size is not None and size in left:
            left.remove(size)
        else:
            return None
    number = math.prod(size for size in left if isinstance(size, int))
    symbols = [size for size in left if not isinstance(size, int)]
    if divisor == 0 or number % divisor:
        return None
    if not symbols:
        return number // divisor
    return symbols[0] if len(symbols) == 1 and number == divisor else None


def _transpose(node: _Node) -> Shape | None:
    shape = node.shape(0)
    perm = node.attr("perm")
    return None if shape is None else tuple(shape[k] for k in (perm or reversed(range(len(shape)))))


def _convolution(node: _Node) -> Shape | None:
    weight, source = node.shape(1), node.shape(0)
    if weight is None or len(weight) < 3:
        return None
    outputs = weight[0]
    if node.proto.op_type == "ConvTranspose" and isinstance(weight[1], int):
        outputs = weight[1] * node.attr("group", 1)
    return (None if source is None else source[0], outputs, *(None,) * (len(weight) - 2))


def _gemm(node: _Node) -> Shape | None:
    left, right = node.shape(0), node.shape(1)
    if right is None or len(right) != 2:
        return None
    rows = None if left is None else left[1 if node.attr("transA", 0) else 0]
    return rows, right[0 if node.attr("transB", 0) else 1]


def _matmul(node: _Node) -> Shape | None:
    left, right = node.shape(0), node.shape(1)
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    batch = _broadcast([left[:-2], right[:-2]])
    return None if batch is None else (*batch, left[-2], right[-1])


def _concat(node: _Node) -> Shape | None:
    shapes = [node.shape(k) for k in range(len(node.proto.input))]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return None
    axis = node.attr("axis", 1) % len(known[0])
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    total = None
    if all(isinstance(size, int) for size in sizes):
        total = sum(size for size in sizes if isinstance(size, int))
    rest = [next((s[k] for s in known if isinstance(s[k], int)), known[0][k]) for k in range(len(known[0]))]
    return tuple(total if k == axis else size for k, size in enumerate(rest))


def _slice_shape(node: _Node) -> Shape | None:
    shape, starts, ends = node.shape(0), node.ints(1, "starts"), node.ints(2, "ends")
    if shape is None:
        return None
    given = node.ints(3, "axes")
    axes = list(range(len(shape))) if given is None and not node.name(3) else given
    steps = node.ints(4, "steps") if node.name(4) else None
    if axes is None:
        return (None,) * len(shape)
    sizes = list(shape)
    for k, axis in enumerate(axes):
        size, at = sizes[axis], axis % len(shape)
        if starts is None or ends is None or not isinstance(size, int) or (node.name(4) and steps is None):
            sizes[at] = None
        else:
            stop: int | None = ends[k]
            step = 1 if steps is None else steps[k]
            if step < 0 and ends[k] < -(1 << 30):
                stop = None
            sizes[at] = len(range(size)[slice(starts[k], stop, step)])
    return tuple(sizes)


def _from_vector(index: int) -> Callable[[_Node], Shape | None]:
    def rule(node: _Node) -> Shape | None:
        vector = node.vector(index)
        if vector is None:
            return None
        return tuple(v if isinstance(v, str) or v is None else int(v) for v in vector.entries)

    return rule


def _expand(node: _Node) -> Shape | None:
    target = _from_vector(1)(node)
    return None if target is None else _broadcast([node.shape(0), target])


def _resize(node: _Node) -> Shape | None:
    shape = node.shape(0)
    sizes = _from_vector(3)(node)
    if shape is None or sizes is None or node.attr("axes") is not None or len(sizes) != len(shape):
        return (
            shape[:2] + (None,) * (len(shape) - 2)
            if shape is not None and node.attr("axes") is None
            else None
        )
    return sizes


def _squeeze_shape(node: _Node) -> Shape | None:
    shape, axes = node.shape(0), node.ints(1, "axes")
    if shape is None or axes is None:
        return None
    if node.proto.op_type == "Unsqueeze":
        rank = len(shape) + len(axes)
        rest = iter(shape)
        return tuple(1 if k in {a % rank for a in axes} else next(rest) for k in range(rank))
    return tuple(size for k, size in enumerate(shape) if k not in {a % len(shape) for a in axes})


def _pooled(node: _Node) -> Shape | None:
    shape = node.shape(0)
    if shape is None:
        return None
    return (*shape[:2], *((1,) if node.proto.op_type.startswith("Global") else (None,)) * (len(shape) - 2))


def _flatten(node: _Node) -> Shape | None:
    shape = node.shape(0)
    if shape is None:
        return None
    axis = node.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return quotient(shape[:axis], []), quotient(shape[axis:], [])


def _reduced(node: _Node) -> Shape | None:
    shape, axes = node.shape(0), node.ints(1, "axes")
    if shape is None or (axes is None and node.name(1)):
        return None
    if not axes and node.attr("noop_with_empty_axes", 0):
        return shape
    lost = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    keep = node.attr("keepdims", 1)
    return tuple(1 if k in lost else size for k, size in enumerate(shape) if keep or k not in lost)


SHAPES: Mapping[str, Callable[[_Node], Shape | None]] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Concat": _concat,
    "Slice": _slice_shape,
    "Expand": _expand,
    "ConstantOfShape": _from_vector(0),
    "Resize": _resize,
    "Squeeze": _squeeze_shape,
    "Unsqueeze": _squeeze_shape,
    "MaxPool": _pooled,
    "AveragePool": _pooled,
    "GlobalAveragePool": _pooled,
    "GlobalMaxPool": _pooled,
    "Flatten": _flatten,
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"), _reduced),
}


# --- vectors ---------------------------------------------------------------------------------------------------


def _shape_vector(node: _Node) -> Vector | None:
    shape = node.shape(0)
    return None if shape is None else Vector(tuple(shape[node.attr("start", 0) : node.attr("end")]))


def _constant(node: _Node) -> Vector | None:
    for attribute in node.proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return _vector_of(value)
        if attribute.name in ("value_int", "value_float"):
            return Vector((value,), scalar=True)
        if attribute.name in ("value_ints", "value_floats"):
            return Vector(tuple(value))
    return None


def _gather(node: _Node) -> Vector | None:
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


def _slice_vector(node: _Node) -> Vector | None:
    source, starts, ends = node.vector(0), node.ints(1, "starts"), node.ints(2, "ends")
    steps = (node.ints(4, "steps") if node.name(4) else None) or [1]
    if source is None or not starts or not ends or (node.name(4) and node.ints(4, "steps") is None):
        return None
    stop = None if steps[0] < 0 and ends[0] < -(1 << 30) else ends[0]
    return Vector(source.entries[slice(starts[0], stop, steps[0])])


def _concat_vector(node: _Node) -> Vector | None:
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


def _as_vector(scalar: bool | None) -> Callable[[_Node], Vector | None]:
    """Unsqueeze, Squeeze and the like: the same entries, as a vector or a scalar (None: as before)."""

    def rule(node: _Node) -> Vector | None:
        source = node.vector(0)
        if (
            source is None
            or (scalar is not None and len(source.entries) != 1)
            or (scalar is False and not source.scalar)
        ):
            return None
        return Vector(source.entries, source.scalar if scalar is None else scalar)

    return rule


def _cast(node: _Node) -> Vector | None:
    source = node.vector(0)
    if source is None or node.attr("to") not in (1, 6, 7, 10, 11):
        return None
    kind = int if node.attr("to") in (6, 7) else float
    known = tuple(e if isinstance(e, str) or e is None else kind(e) for e in source.entries)
    return Vector(known, source.scalar)


def _arithmetic(node: _Node) -> Vector | None:
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


def _filled(node: _Node) -> Vector | None:
    sizes = node.vector(0)
    if sizes is None or not sizes.known or len(sizes.entries) != 1:
        return None
    value = node.attr("value")
    entry = 0 if value is None else onnx.numpy_helper.to_array(value).reshape(-1).tolist()[0]
    length = int(sizes.entries[0] or 0)
    return Vector((entry,) * length) if length <= LONGEST_VECTOR else None


def _reduce_prod(node: _Node) -> Vector | None:
    source = node.vector(0)
    if source is None or not source.known:
        return None
    product = math.prod(v for v in source.entries if isinstance(v, int | float))
    return Vector((product,), scalar=not node.attr("keepdims", 1))


def _reshaped_vector(node: _Node) -> Vector | None:
    source, target = node.vector(0), node.vector(1)
    if source is None or target is None or len(target.entries) > 1:
        return None
    return Vector(source.entries, scalar=not target.entries)


VECTORS: Mapping[str, Callable[[_Node], Vector | None]] = {
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


def as_array(vector: Vector, data_type: int) -> np.ndarray | None:
    """A vector whose entries are all numbers, as an array; else None."""
    if not vector.known:
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    return np.asarray(vector.entries[0] if vector.scalar else vector.entries, dtype)
