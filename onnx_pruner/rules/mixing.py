"""Rules for operators that reduce or normalise along some axes: along others channels pass, along their
own they stay.
"""

from onnx_shift.onnx_pruner.effect import Effect, pin_all
from onnx_shift.onnx_pruner.op import Op
from onnx_shift.onnx_pruner.rules.moving import NONE, UNCHANGED, ZERO_ONLY, carry

LETS = {
    "ReduceMean": UNCHANGED,
    "ReduceMax": UNCHANGED,
    "ReduceMin": UNCHANGED,
    "ReduceSum": ZERO_ONLY,
    "ReduceSumSquare": ZERO_ONLY,
    "ReduceL1": ZERO_ONLY,
    "ReduceL2": ZERO_ONLY,
    "CumSum": ZERO_ONLY,
    "LpNormalization": NONE,
}


def reduction(op: Op) -> Effect:
    """Reductions and ArgMax: along other axes than the channels' each channel is reduced alone."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,) * len(op.output_names))
    if "axis" in op.node.attrs or op.type.startswith("Arg"):
        axes: list[int] | None = [op.attr("axis", 0)]
    else:
        axes = op.ints(1, "axes") if op.has(1) or "axes" in op.node.attrs else []
    if axes is None:
        return pin_all(op, "reducing along computed axes")
    if not axes and not op.attr("noop_with_empty_axes", 0):
        axes = list(range(rank))
    axes = [a % rank for a in axes]
    if channels.axis in axes:
        return pin_all(op, f"{op.type} along the channels")
    lost = 0 if op.attr("keepdims", 1) else sum(a < channels.axis for a in axes)
    return carry(op, channels.axis - lost, LETS.get(op.type, NONE))


def along_axis(op: Op) -> Effect:
    """Softmax and its kin, LpNormalization, TopK, CumSum: they mix what lies on one axis."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,) * len(op.output_names))
    flattened = op.opset < 13 and op.type in ("Softmax", "LogSoftmax", "Hardmax")
    axis: int | None = op.attr("axis", 1 if flattened else -1)
    if op.type.startswith("Cum"):
        axis = next(iter(op.ints(1) or ()), None)
    if axis is None or channels.axis == axis % rank or (flattened and channels.axis > axis % rank):
        return pin_all(op, f"{op.type} along the channels")
    effect = carry(op, lets=LETS.get(op.type, NONE))
    pins = {i: "a parameter" for i in op.inputs if i and op.channels(i) is not None}
    return Effect(effect.outputs, effect.ties, pins=pins)


def layer_normalization(op: Op) -> Effect:
    """LayerNormalization and RMSNormalization mix the axes from `axis` on."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,) * len(op.output_names))
    if channels.axis >= op.attr("axis", -1) % rank or len(op.output_names) > 1:
        return pin_all(op, f"{op.type} along the channels")
    return carry(op, lets=NONE)


def mean_variance(op: Op) -> Effect:
    """MeanVarianceNormalization over axes that may leave the channels out."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    if channels.axis in [a % rank for a in op.attr("axes", [0, 2, 3])]:
        return pin_all(op, "MeanVarianceNormalization along the channels")
    return carry(op, lets=ZERO_ONLY)


def mixes_channels(op: Op) -> Effect:
    """Operators that mix channels by their nature: LRN, GroupNormalization."""
    return pin_all(op, f"{op.type} mixes channels")


def shape_only(op: Op) -> Effect:
    """Shape reads no channel; if the tensor shrinks, `apply` sees to it that the old size is reported."""
    return Effect((None,))
