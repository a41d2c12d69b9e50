"""What each operator does to channels: one table, operator → rule, and one of those that need all channels, with the
reason. An operator that is in neither pins its channels.
"""

from onnx_shift.onnx_pruner.effect import Rule
from onnx_shift.onnx_pruner.rules.attention import (
    attention,
    attention_with_weights,
    multi_head_attention,
    rotary_embedding,
)
from onnx_shift.onnx_pruner.rules.einsum import einsum
from onnx_shift.onnx_pruner.rules.elementwise import cast, dropout, elementwise, quantise
from onnx_shift.onnx_pruner.rules.indexing import (
    compress,
    crop_and_pad,
    gather,
    gather_elements,
    gather_nd,
    reverse_sequence,
    tensor_scatter,
    triangle,
)
from onnx_shift.onnx_pruner.rules.linear import (
    batch_normalization,
    convolution,
    deformable_convolution,
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
    pad,
    pooling,
    resize,
    sampling,
    slice_,
    split,
)
from onnx_shift.onnx_pruner.rules.recurrent import causal_convolution, recurrent
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
    "Einsum": einsum,
    "DeformConv": deformable_convolution,
    "CausalConvWithState": causal_convolution,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), recurrent),
    # attention
    "Attention": attention,
    "RotaryEmbedding": rotary_embedding,
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
        ("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
         "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "SwiGLU",
         "Where", "Xor"),
        elementwise,
    ),
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast,
    "BitCast": cast,
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
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Compress": compress,
    "ReverseSequence": reverse_sequence,
    "TensorScatter": tensor_scatter,
    "Trilu": triangle,
    "CenterCropPad": crop_and_pad,
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
    **dict.fromkeys(("CumProd", "CumSum", "Hardmax", "LogSoftmax", "Softmax", "TopK"), along_axis),
    "Shape": shape_only,
}  # fmt: skip
#: Operators of the standard that need all channels of what they read, and why.
PINNED: dict[str, str] = {
    **dict.fromkeys(
        (
            "BlackmanWindow",
            "Constant",
            "ConstantOfShape",
            "EyeLike",
            "HammingWindow",
            "HannWindow",
            "MelWeightMatrix",
            "RandomNormal",
            "RandomUniform",
            "Range",
            "SequenceEmpty",
            "Size",
        ),
        "makes numbers of its own",
    ),
    **dict.fromkeys(
        ("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"),
        "draws at random, otherwise for another number of channels",
    ),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"), "computes in integers"),
    "DynamicQuantizeLinear": "takes its scale from all channels",
    **dict.fromkeys(
        (
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ),
        "tensors in a sequence cannot be told apart",
    ),
    **dict.fromkeys(
        ("ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
        "works on text or on bytes",
    ),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), "a loss over all channels"),
    **dict.fromkeys(("If", "Loop", "Scan"), "read by its bodies"),
    **dict.fromkeys(("NonMaxSuppression", "NonZero", "OneHot", "Unique"), "counts or selects over all elements"),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), "writes at indices"),
    **dict.fromkeys(("Col2Im", "DFT", "Det", "LinearAttention", "STFT"), "mixes channels with other axes"),
    "AffineGrid": "a transformation of positions",
    "MaxUnpool": "positions over the whole tensor",
}
#: Other domains of the standard, whose operators have no channels.
PINNED_DOMAINS: dict[str, str] = {
    "ai.onnx.ml": "classical machine learning",
    "ai.onnx.preview": "not settled yet",
    "ai.onnx.preview.training": "training",
}
#: Those of onnxruntime's own operators that its optimiser writes; layers with an activation are taken apart (see
#: `graph.contrib`).
CONTRIB_RULES: dict[str, Rule] = {
    "Attention": attention_with_weights,
    "MultiHeadAttention": multi_head_attention,
    "FusedMatMul": matmul,
    "TransposeMatMul": matmul,
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), elementwise),
}
