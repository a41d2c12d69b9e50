"""A generator for every operator that the pruner has a rule for: each adds that operator to a growing graph.

A generator draws shapes, attributes and operands at random, and keeps values in the operator's domain.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from zoo.operators_indexing import (
    bits,
    compress,
    crop_and_pad,
    gather_elements,
    gather_nd,
    reverse_sequence,
    shifted,
    tensor_scatter,
    triangle,
)
from zoo.operators_layers import (
    batch_normalization,
    convolution,
    deformable_convolution,
    gemm,
    global_pool,
    grid_sample,
    group_normalization,
    instance_normalization,
    layer_normalization,
    local_response,
    lp_normalization,
    matmul,
    mean_variance,
    pool,
    resize,
    roi_align,
    roi_pool,
    transposed_convolution,
    upsample,
)
from zoo.operators_layout import (
    along_axis,
    arg,
    channel_shuffle,
    computed_reshape,
    concat,
    cumulative,
    depth_to_space,
    expand,
    flatten,
    gather,
    largest,
    pad,
    reduction,
    reshape,
    shape_as_numbers,
    slice_,
    space_to_depth,
    split,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from zoo.operators_sequence import (
    attention,
    causal_convolution,
    einsum,
    recurrent,
    rotary_embedding,
)
from zoo.operators_values import (
    binary,
    bitwise,
    cast,
    cast_like,
    clip,
    comparison,
    division,
    dropout,
    gated,
    gelu,
    logical,
    modulo,
    power,
    prelu,
    quantised,
    quantised_weight,
    several,
    test_of_one,
    unary,
    where,
)
from zoo.random_graphs import Growing

Generator = Callable[[Growing], object]


@dataclass(frozen=True)
class Entry:
    """A generator, and the operator sets that have the operator."""

    generate: Generator
    since: int = 7
    until: int = 99


def either(*generators: Generator) -> Generator:
    return lambda g: g.pick(generators)(g)


def table(names: str, generate: Callable[..., object], since: int = 7, **later: int) -> dict[str, Entry]:
    """Return an entry per name; `later` gives operators that came after `since`."""
    return {name: Entry(partial(generate, op=name), later.get(name, since)) for name in names.split()}


GENERATORS: dict[str, Entry] = {
    "Conv": Entry(convolution),
    "ConvTranspose": Entry(transposed_convolution),
    "Gemm": Entry(gemm),
    "MatMul": Entry(matmul, 9),
    "Einsum": Entry(einsum, 12),
    "DeformConv": Entry(deformable_convolution, 19),
    "CausalConvWithState": Entry(causal_convolution, 27),
    **table("GRU LSTM RNN", recurrent),
    "Attention": Entry(attention, 23),
    "RotaryEmbedding": Entry(rotary_embedding, 23),
    "BatchNormalization": Entry(batch_normalization),
    "InstanceNormalization": Entry(instance_normalization),
    "LayerNormalization": Entry(layer_normalization, 17),
    "RMSNormalization": Entry(partial(layer_normalization, op="RMSNormalization"), 23),
    "GroupNormalization": Entry(group_normalization, 21),
    "LRN": Entry(local_response),
    "LpNormalization": Entry(lp_normalization),
    "MeanVarianceNormalization": Entry(mean_variance, 9),
    **table(
        "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish Identity"
        " LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt"
        " Tan Tanh ThresholdedRelu",
        unary, 7, Acosh=9, Asinh=9, Atanh=9, Celu=12, Cosh=9, Erf=9, HardSwish=14, Mish=18, Round=11, Shrink=9, Sign=9,
        Sinh=9, ThresholdedRelu=10,
    ),
    "Clip": Entry(clip),
    "Gelu": Entry(gelu, 20),
    **table("IsInf IsNaN Not", test_of_one, 9, IsInf=10),
    **table("BitwiseNot BitwiseAnd BitwiseOr BitwiseXor", bitwise, 18),
    **table("Add Mul Sub", binary),
    **table("Max Mean Min Sum", several, 8),
    **table("And Or Xor", logical, 9),
    **table("Equal Greater GreaterOrEqual Less LessOrEqual", comparison, 11, GreaterOrEqual=12, LessOrEqual=12),
    "Div": Entry(division),
    "Mod": Entry(modulo, 10),
    "PRelu": Entry(prelu),
    "Pow": Entry(power),
    "Where": Entry(where, 9),
    "Dropout": Entry(dropout),
    "Cast": Entry(cast),
    "CastLike": Entry(cast_like, 15),
    # onnxruntime lacks the newest versions of some
    "Swish": Entry(partial(unary, op="Swish"), 24, 24),
    "QuantizeLinear": Entry(quantised, 10, 27),
    "DequantizeLinear": Entry(quantised_weight, 10, 27),
    **table("AveragePool LpPool MaxPool", pool),
    **table("GlobalAveragePool GlobalMaxPool", global_pool),
    "GlobalLpPool": Entry(partial(global_pool, op="GlobalLpPool"), 7, 21),
    "Resize": Entry(resize, 10),
    "Upsample": Entry(upsample, 7, 9),
    "GridSample": Entry(grid_sample, 16),
    "RoiAlign": Entry(roi_align, 10, 21),
    "MaxRoiPool": Entry(roi_pool, 7, 21),
    "Concat": Entry(concat),
    "Split": Entry(split),
    "Slice": Entry(slice_),
    "Gather": Entry(gather),
    "GatherElements": Entry(gather_elements, 11),
    "GatherND": Entry(gather_nd, 11),
    "Compress": Entry(compress, 9),
    "ReverseSequence": Entry(reverse_sequence, 10),
    "TensorScatter": Entry(tensor_scatter, 24),
    "Trilu": Entry(triangle, 14),
    "CenterCropPad": Entry(crop_and_pad, 18),
    "BitShift": Entry(shifted, 11),
    "BitCast": Entry(bits, 26),
    "Pad": Entry(pad),
    "Reshape": Entry(either(reshape, computed_reshape)),
    "Flatten": Entry(flatten),
    "Squeeze": Entry(squeeze),
    "Unsqueeze": Entry(unsqueeze),
    "Transpose": Entry(transpose),
    "Expand": Entry(expand, 8),
    "Tile": Entry(tile),
    "DepthToSpace": Entry(depth_to_space),
    "SpaceToDepth": Entry(space_to_depth),
    "ChannelShuffle": Entry(channel_shuffle),
    **table(
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum"
        " ReduceSumSquare",
        reduction,
    ),
    **table("ArgMax ArgMin", arg),
    **table("Hardmax LogSoftmax Softmax", along_axis),
    "CumSum": Entry(cumulative, 11),
    "CumProd": Entry(partial(cumulative, op="CumProd"), 26),
    "TopK": Entry(largest),
    "Shape": Entry(shape_as_numbers),
}  # fmt: skip
#: What onnxruntime has no kernels for, to be run by the reference evaluator.
REFERENCE_ONLY = {
    "SwiGLU": Entry(gated, 28),
    **{name: replace(GENERATORS[name], since=28, until=28) for name in ("Swish", "QuantizeLinear", "DequantizeLinear")},
}
#: What networks are mostly made of, to stand around the operator under test.
COMMON = (
    "Conv", "Conv", "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Relu", "Relu", "LeakyRelu",
    "Sigmoid", "Add", "Add", "Mul", "Concat", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Slice", "Split",
    "Reshape", "Transpose", "Pad", "Clip", "PRelu", "Flatten", "Squeeze", "Unsqueeze", "ReduceMean", "ChannelShuffle",
)  # fmt: skip
OPSETS = (7, 9, 11, 12, 13, 15, 17, 18, 20, 21, 22, 24, 26, 28)
