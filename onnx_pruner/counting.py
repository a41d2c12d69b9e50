"""Counting: parameters, multiply–accumulates, and layer shapes before and after.

Nothing is run. `count_macs` takes shapes from onnx.shape_inference with a batch of 1; stored `value_info` is ignored,
because tools that edit weights seldom keep it up to date.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from onnx_shift.onnx_pruner.analysis import Analysis
from onnx_shift.onnx_pruner.effect import Linear
from onnx_shift.onnx_pruner.graph.weighted import Stored, is_weight, stored_tensors
from onnx_shift.onnx_pruner.layers import shape_after
from onnx_shift.onnx_pruner.op import Mask, Op
from onnx_shift.onnx_pruner.plan import Plan
from onnx_shift.onnx_pruner.report import LayerChange
from onnx_shift.onnx_pruner.rules.einsum import free_sizes

Sizes = tuple[int, ...]


def count_macs(model: ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> int | None:
    """Return the multiply–accumulates of one inference, or None where a shape cannot be inferred.

    Counted are Conv, ConvTranspose, Gemm and MatMul, Conv and MatMul in integers, too; taps that fall on padding
    count, as is usual.
    `input_shapes` fixes free axes of the inputs; a first axis that is not named there becomes a batch of 1.
    """
    shapes = _shapes(model, input_shapes or {})
    total = 0
    for node in model.graph.node:
        if node.op_type in _MACS and node.domain in ("", "ai.onnx"):
            weight = 3 if node.op_type.startswith("QLinear") else 1
            read = [shapes.get(node.input[index]) for index in (0, weight)]
            written = shapes.get(node.output[0])
            if written is None or any(shape is None for shape in read):
                return None
            total += _MACS[node.op_type](node, [shape for shape in read if shape is not None], written)
    return total


def _convolution(node: NodeProto, read: Sequence[Sizes], written: Sizes) -> int:
    return prod(written) * prod(read[1][1:])  # weight (M, C / group, kernel ...)


def _transposed_convolution(node: NodeProto, read: Sequence[Sizes], written: Sizes) -> int:
    return prod(read[0]) * prod(read[1][1:])  # weight (C, M / group, kernel ...)


def _gemm(node: NodeProto, read: Sequence[Sizes], written: Sizes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(written) * read[0][0 if transposed else 1]


def _matmul(node: NodeProto, read: Sequence[Sizes], written: Sizes) -> int:
    return prod(written) * read[0][-1]


_MACS: Mapping[str, Callable[[NodeProto, Sequence[Sizes], Sizes], int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _convolution),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
}


def _shapes(model: ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, Sizes]:
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in fixed.graph.input:
        axes = value.type.tensor_type.shape.dim
        for index, axis in enumerate(axes):
            if value.name in input_shapes and index < len(input_shapes[value.name]):
                axis.dim_value = input_shapes[value.name][index]
            elif index == 0 and not axis.dim_value:
                axis.dim_value = 1
    try:
        graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return {}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        axes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = tuple(axis.dim_value for axis in axes)
    return shapes


FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
)


def _is_parameter(tensor: Stored) -> bool:
    """Whether a constant is one of the model's parameters: floating-point, or a quantised weight."""
    kind = tensor.data_type if isinstance(tensor, onnx.TensorProto) else tensor.values.data_type
    return kind in FLOATS or is_weight(tensor)  # scales and zero points have one axis at most


def parameter_count(model: onnx.ModelProto) -> int:
    """Elements of all parameters: initializers, sparse ones at full size, Constant nodes, and ConstantOfShape of a
    constant shape; those in bodies of If, Loop and Scan, too.
    """
    tensors = list(stored_tensors(model.graph))
    small = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64 and prod(t.dims) < 16]
    shapes: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in small}
    total = sum(int(prod(tensor.dims)) for tensor in tensors if _is_parameter(tensor))
    for node in model.graph.node:
        if node.op_type not in ("Constant", "ConstantOfShape"):
            continue
        value = next((a.t for a in node.attribute if a.name == "value" and a.type == onnx.AttributeProto.TENSOR), None)
        if node.op_type == "Constant" and value is not None:
            shapes[node.output[0]] = value
        filled = node.op_type == "ConstantOfShape" and node.input[0] in shapes
        if filled and (value is None or value.data_type in FLOATS):
            total += int(np.prod(onnx.numpy_helper.to_array(shapes[node.input[0]])))
    return total


def kept_channels(op: Op, linear: Linear, plan: Plan) -> tuple[Mask, Mask]:
    """Which inputs and outputs of a layer stay under a plan."""
    if op.output in plan.narrow:
        return plan.narrow[op.output].inputs, plan.narrow[op.output].outputs
    groups, outputs, inputs = linear.kernel.shape
    keep_in = plan.keep.get(op.name(linear.input), np.ones(groups * inputs, np.bool_))
    return keep_in, plan.keep.get(op.output, np.ones(groups * outputs, np.bool_))


def _positions(op: Op, linear: Linear) -> int | None:
    """At how many positions per sample the weights are applied."""
    if op.type.endswith("MatMul"):
        shape = op.output_shape()
        skip: set[int] = {0, (len(shape or ()) - 1) if linear.weight else (len(shape or ()) - 2)}
        sizes = [size for k, size in enumerate(shape or (None,)) if k not in skip]
    elif op.type == "Einsum":
        sizes = free_sizes(op, linear.weight)
    elif op.type == "Gemm":
        sizes = []
    else:
        shape = op.shape(0) if op.type == "ConvTranspose" else op.output_shape()
        sizes = list((shape or (None, None, None))[2:])
    return None if any(not isinstance(size, int) for size in sizes) else prod(int(size or 0) for size in sizes)


def layer_changes(analysis: Analysis, plan: Plan, alive: Collection[str]) -> tuple[LayerChange, ...]:
    """Every layer with weights, before and after; a layer that is gone has shape () after. `alive`: names
    computed after.
    """
    found = []
    for op, effect in zip(analysis.ops, analysis.effects, strict=True):
        linear = effect.linear
        if linear is None:
            continue
        before = op.constants.shape(op.name(linear.weight))
        stays = op.output in alive
        after = shape_after(linear, before, *kept_channels(op, linear, plan)) if stays else ()
        bias = op.constant(linear.bias) if linear.bias is not None else None
        outputs = int(kept_channels(op, linear, plan)[1].sum())
        positions = _positions(op, linear)
        found.append(
            LayerChange(
                name=op.node.name or op.output,
                op=op.type,
                before=before,
                after=after,
                parameters_before=prod(before) + (0 if bias is None else bias.size),
                parameters_after=prod(after) + (outputs if bias is not None or linear.shift is not None else 0)
                if stays else 0,
                macs_before=None if positions is None else prod(before) * positions,
                macs_after=(None if positions is None else prod(after) * positions) if stays else 0,
            )
        )  # fmt: skip
    return tuple(found)


def total_macs(layers: Collection[LayerChange], after: bool) -> int | None:
    """Multiply–accumulates of one sample; None when a layer's spatial size is not known."""
    counts = [layer.macs_after if after else layer.macs_before for layer in layers]
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)


def planned_parameters(analysis: Analysis, plan: Plan, alive: Collection[str] | None = None) -> int:
    """Parameters of layers and per-channel operands under a plan; the difference of two plans is exact.

    A weight that several layers slice alike is counted once. `alive`: names computed after, all if not given.
    """
    sizes: dict[tuple[object, ...], int] = {}
    for op, effect in zip(analysis.ops, analysis.effects, strict=True):
        linear, name = effect.linear, op.output
        if alive is not None and name not in alive:
            continue
        if linear is not None:
            keep_in, keep_out = kept_channels(op, linear, plan)
            shape = op.constants.shape(op.name(linear.weight))
            standing = plan.representative.get(op.name(linear.input)) if linear.merges else None
            own = name if linear.scale is not None or standing is not None else ""
            key: tuple[object, ...] = (
                op.constants.root(op.name(linear.weight)),
                own,
                keep_in.tobytes(),
                keep_out.tobytes(),
            )
            sizes[key] = prod(shape_after(linear, shape, keep_in, keep_out))
            if linear.bias is not None and (op.has(linear.bias) or linear.shift is not None):
                sizes[
                    (
                        "bias",
                        op.constants.root(op.name(linear.bias)) if op.has(linear.bias) else name,
                        *key[1:],
                    )
                ] = int(keep_out.sum())
        for operand in effect.operands:
            array = op.constant(operand.index) if operand.array is None else operand.array
            assert array is not None
            size = array.shape[operand.axis]
            part = plan.keep[op.output_names[operand.output]][operand.start : operand.start + size]
            key = ("operand", op.constants.root(op.name(operand.index)), part.tobytes())
            sizes[key] = array.size // max(size, 1) * int(part.sum())
    return sum(sizes.values())
