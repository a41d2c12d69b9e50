"""What each operator does to channels: one table, operator → rule. An operator that is missing here pins
its channels.
"""

from onnx_shift.onnx_pruner.effect import Rule
from onnx_shift.onnx_pruner.rules.elementwise import cast, dropout, elementwise, quantise
from onnx_shift.onnx_pruner.rules.linear import (
    batch_normalization,
    convolution,
    gemm,
    instance_normalization,
    matmul,
)
from onnx_shift.onnx_pruner.rules.mixing import (
    along_axis,
    layer_normalization,
    mean_variance,
    mixes_channels,
    reduction,
    shape_only,
)
from onnx_shift.onnx_pruner.rules.moving import (
    concat,
    gather,
    pad,
    pooling,
    resize,
    sampling,
    slice_,
    split,
)
from onnx_shift.onnx_pruner.rules.reshape import (
    channel_shuffle,
    depth_to_space,
    expand,
    reshape,
    squeeze,
    tile,
    transpose,
)

RULES: dict[str, Rule] = {
    # multiply by constant weights
    "Conv": convolution,
    "ConvTranspose": convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    # normalise
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "GroupNormalization": mixes_channels,
    "LRN": mixes_channels,
    "LpNormalization": along_axis,
    "MeanVarianceNormalization": mean_variance,
    # activations and other functions of one operand
    **dict.fromkeys(
        ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh",
         "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
         "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
         "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
        elementwise,
    ),
    # functions of several operands that broadcast
    **dict.fromkeys(
        ("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
         "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
        elementwise,
    ),
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast,
    "QuantizeLinear": quantise,
    "DequantizeLinear": quantise,
    # pool, resize and sample each channel alone
    **dict.fromkeys(
        ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"),
        pooling,
    ),
    "Resize": resize,
    "Upsample": resize,
    "GridSample": sampling,
    "RoiAlign": sampling,
    "MaxRoiPool": sampling,
    # join, take apart, move
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Pad": pad,
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": squeeze,
    "Transpose": transpose,
    "Expand": expand,
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": depth_to_space,
    "ChannelShuffle": channel_shuffle,
    # reduce, or mix along one axis
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
         "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        reduction,
    ),
    **dict.fromkeys(("CumSum", "Hardmax", "LogSoftmax", "Softmax", "TopK"), along_axis),
    "Shape": shape_only,
}  # fmt: skip
