"""The multiply–accumulates of a model, counted from its graph.

Nothing is run. Shapes come from onnx.shape_inference with a batch of 1; stored `value_info` is ignored,
because tools that edit weights seldom keep it up to date.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import onnx
from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]


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


def _convolution(node: NodeProto, read: Sequence[Shape], written: Shape) -> int:
    return math.prod(written) * math.prod(read[1][1:])  # weight (M, C / group, kernel ...)


def _transposed_convolution(node: NodeProto, read: Sequence[Shape], written: Shape) -> int:
    return math.prod(read[0]) * math.prod(read[1][1:])  # weight (C, M / group, kernel ...)


def _gemm(node: NodeProto, read: Sequence[Shape], written: Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(written) * read[0][0 if transposed else 1]


def _matmul(node: NodeProto, read: Sequence[Shape], written: Shape) -> int:
    return math.prod(written) * read[0][-1]


_MACS: Mapping[str, Callable[[NodeProto, Sequence[Shape], Shape], int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _convolution),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
}


def _shapes(model: ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
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
