"""Shapes where ONNX's own inference stops: sizes worked out at run time from Shape, Gather, Concat and arithmetic.

Exported networks reshape by such sub-graphs, with the batch size unknown. Here small integer tensors are followed as
vectors of numbers and symbols (names of dimensions), and shapes are completed from them; ONNX's inference then runs
on from there. A symbol stands for one size throughout a run of the model.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import onnx
import onnx.shape_inference

from onnx_shift.onnx_pruner.graph.contrib import CONTRIB
from onnx_shift.onnx_pruner.graph.vectors import (
    Dimension,
    Inferred,
    Node,
    Shape,
    follow,
    python_slice,
    vector_of,
)

MOST_ROUNDS = 12
SAME_SHAPE = frozenset((
    "BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Mish",
    "Neg", "PRelu", "Relu", "Reciprocal", "Selu", "Sigmoid", "Softmax", "Softplus", "Sqrt", "Tanh",
    "QuantizeLinear", "DequantizeLinear", "GroupNormalization", "CumSum", "Abs", "Round", "Floor", "Ceil", "Not",
))  # fmt: skip
BROADCASTS = frozenset((
    "Add", "Sub", "Mul", "Div", "Pow", "Where", "Min", "Max", "Sum", "Mean", "Equal", "Greater", "Less", "And",
    "Or", "Mod",
))  # fmt: skip


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
        if vector := vector_of(tensor):
            found.vectors[tensor.name] = vector
    return found


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dimension:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) or None


def _complete(graph: onnx.GraphProto, found: Inferred) -> list[str]:
    """Follow vectors and complete shapes, in place; returns the tensors whose shape is now better known."""
    completed = []
    for proto in graph.node:
        standard = proto.domain in ("", "ai.onnx")
        if not proto.output or not (standard or (proto.domain == CONTRIB and proto.op_type in CONTRIB_SHAPES)):
            continue
        node, name = Node(proto, found), proto.output[0]
        if standard and (vector := follow(node)) is not None:
            found.vectors[name] = vector
            found.shapes.setdefault(name, vector.shape)
        known = found.shapes.get(name)
        if known is not None and None not in known and not any(_invented(size) for size in known):
            continue
        better = _shape(node)
        if better is None or (known is not None and len(known) != len(better)):
            continue
        merged = tuple(b if k is None or _invented(k) else k for k, b in zip(known or better, better, strict=True))
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


def _shape(node: Node) -> Shape | None:
    op, first = node.proto.op_type, node.shape(0)
    if op in SAME_SHAPE:
        return first
    if op in BROADCASTS:
        return _broadcast([node.shape(k) for k in range(len(node.proto.input))])
    rule = (CONTRIB_SHAPES if node.proto.domain == CONTRIB else SHAPES).get(op)
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
        result.append(1 if not others else numbers[0] if numbers else others.pop() if len(others) == 1 else None)
    return tuple(result)


def _reshape(node: Node) -> Shape | None:
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


def _transpose(node: Node) -> Shape | None:
    shape = node.shape(0)
    perm = node.attr("perm")
    return None if shape is None else tuple(shape[k] for k in (perm or reversed(range(len(shape)))))


def _convolution(node: Node) -> Shape | None:
    weight, source = node.shape(1), node.shape(0)
    if weight is None or len(weight) < 3:
        return None
    outputs = weight[0]
    if node.proto.op_type == "ConvTranspose" and isinstance(weight[1], int):
        outputs = weight[1] * node.attr("group", 1)
    return (None if source is None else source[0], outputs, *(None,) * (len(weight) - 2))


def _gemm(node: Node) -> Shape | None:
    left, right = node.shape(0), node.shape(1)
    if right is None or len(right) != 2:
        return None
    rows = None if left is None else left[1 if node.attr("transA", 0) else 0]
    return rows, right[0 if node.attr("transB", 0) else 1]


def _matmul(node: Node) -> Shape | None:
    left, right = node.shape(0), node.shape(1)
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        return None
    left = left and (*left[:-2], *left[-2:][::-1]) if node.attr("transA", 0) else left
    right = right and (*right[:-2], *right[-2:][::-1]) if node.attr("transB", 0) else right
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    batch = _broadcast([left[:-2], right[:-2]])
    return None if batch is None else (*batch, left[-2], right[-1])


def _concat(node: Node) -> Shape | None:
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


def _slice_shape(node: Node) -> Shape | None:
    shape, starts, ends = node.shape(0), node.ints(1, "starts"), node.ints(2, "ends")
    if shape is None:
        return None
    given = node.ints(3, "axes")
    axes = list(range(len(starts or shape))) if given is None and not node.name(3) else given
    steps = node.ints(4, "steps") if node.name(4) else None
    if axes is None:
        return (None,) * len(shape)
    sizes = list(shape)
    for k, axis in enumerate(axes):
        size, at = sizes[axis], axis % len(shape)
        if starts is None or ends is None or not isinstance(size, int) or (node.name(4) and steps is None):
            sizes[at] = None
        else:
            step = 1 if steps is None else steps[k]
            sizes[at] = len(range(size)[python_slice(starts[k], ends[k], step)])
    return tuple(sizes)


def _from_vector(index: int) -> Callable[[Node], Shape | None]:
    def rule(node: Node) -> Shape | None:
        vector = node.vector(index)
        if vector is None:
            return None
        return tuple(v if isinstance(v, str) or v is None else int(v) for v in vector.entries)

    return rule


def _expand(node: Node) -> Shape | None:
    target = _from_vector(1)(node)
    return None if target is None else _broadcast([node.shape(0), target])


def _resize(node: Node) -> Shape | None:
    shape, sizes, scales = node.shape(0), _from_vector(3)(node), _from_vector(2)(node)
    if shape is None or node.attr("axes") is not None:
        return None
    if sizes is not None and len(sizes) == len(shape):
        return sizes
    kept = (None,) * len(shape) if scales is None or len(scales) != len(shape) else scales
    return tuple(size if scale == 1 else None for size, scale in zip(shape, kept, strict=True))


def _padded(node: Node) -> Shape | None:
    shape, axes = node.shape(0), node.ints(3, "axes")
    pads = node.attr("pads") or (None if (vector := node.vector(1)) is None else vector.entries)
    if shape is None or (axes is None and node.name(3)):
        return None
    axes = list(range(len(shape))) if axes is None else axes
    sizes = list(shape)
    for k, axis in enumerate(axes):
        added = (None, None) if pads is None or len(pads) != 2 * len(axes) else (pads[k], pads[k + len(axes)])
        numbers = [number for number in (sizes[axis], *added) if isinstance(number, int)]
        if added != (0, 0):
            sizes[axis] = sum(numbers) if len(numbers) == 3 else None
    return tuple(sizes)


def _squeeze_shape(node: Node) -> Shape | None:
    shape, axes = node.shape(0), node.ints(1, "axes")
    if shape is None or axes is None:
        return None
    if node.proto.op_type == "Unsqueeze":
        rank = len(shape) + len(axes)
        rest = iter(shape)
        return tuple(1 if k in {a % rank for a in axes} else next(rest) for k in range(rank))
    return tuple(size for k, size in enumerate(shape) if k not in {a % len(shape) for a in axes})


def _pooled(node: Node) -> Shape | None:
    shape = node.shape(0)
    if shape is None:
        return None
    return (*shape[:2], *((1,) if node.proto.op_type.startswith("Global") else (None,)) * (len(shape) - 2))


def _flatten(node: Node) -> Shape | None:
    shape = node.shape(0)
    if shape is None:
        return None
    axis = node.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return quotient(shape[:axis], []), quotient(shape[axis:], [])


def _reduced(node: Node) -> Shape | None:
    shape, axes = node.shape(0), node.ints(1, "axes")
    if shape is None or (axes is None and node.name(1)):
        return None
    if not axes and node.attr("noop_with_empty_axes", 0):
        return shape
    lost = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    keep = node.attr("keepdims", 1)
    return tuple(1 if k in lost else size for k, size in enumerate(shape) if keep or k not in lost)


def _attended(node: Node) -> Shape | None:
    """Of onnxruntime's Attention, which holds the weights of queries, keys and values beside each other."""
    shape, weights = node.shape(0), node.shape(1)
    columns = weights[1] if weights is not None and len(weights) == 2 else None
    values = node.attr("qkv_hidden_sizes", [0, 0, columns // 3 if isinstance(columns, int) else 0])[2]
    return (*shape[:2], values) if shape is not None and len(shape) == 3 and values else None


def _attended_apart(node: Node) -> Shape | None:
    """Of MultiHeadAttention, where keys and values do not come packed."""
    queries, values = node.shape(0), node.shape(2)
    known = queries is not None and values is not None and len(queries) == len(values) == 3
    return (*queries[:2], values[2]) if known and queries and values else None


SHAPES: Mapping[str, Callable[[Node], Shape | None]] = {
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
    "Pad": _padded,
    "Squeeze": _squeeze_shape,
    "Unsqueeze": _squeeze_shape,
    "MaxPool": _pooled,
    "AveragePool": _pooled,
    "GlobalAveragePool": _pooled,
    "GlobalMaxPool": _pooled,
    "Flatten": _flatten,
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"), _reduced),
}
#: Those of onnxruntime's own operators that have a rule.
CONTRIB_SHAPES: Mapping[str, Callable[[Node], Shape | None]] = {
    "Attention": _attended,
    "MultiHeadAttention": _attended_apart,
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul"), _matmul),
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), lambda node: node.shape(0)),
}
