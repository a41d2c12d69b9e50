"""Generators of layers: linear operators, normalisation, pooling and sampling."""

from typing import Any

import numpy as np

from zoo.random_graphs import Growing, Tensor

# --- linear


def pooled_size(size: int, k: int, stride: int, pads: int, dilation: int = 1, ceil: bool = False) -> int:
    span = size + pads - dilation * (k - 1) - 1
    out = -(-span // stride) if ceil else span // stride
    if ceil and out * stride >= size + pads // 2:
        out -= 1
    return out + 1


def convolution(g: Growing) -> Tensor:
    x = g.image()
    space, c = x.rank - 2, x.shape[1]
    k, stride, dilation = g.pick([1, 2, 3]), g.pick([1, 1, 2]), g.pick([1, 1, 2])
    group = g.pick([d for d in range(1, c + 1) if c % d == 0])
    width = group * g.between(1, max(1, 8 // group))
    weight = g.floats(g.sparse((width, c // group, *[k] * space)))
    attributes: dict[str, Any] = {
        "group": group,
        "strides": [stride] * space,
        "dilations": [dilation] * space,
    }
    smallest = min(x.shape[2:])
    if g.chance(0.2) and dilation == 1:
        attributes["auto_pad"] = g.pick(["SAME_UPPER", "SAME_LOWER"])
        sizes = [-(-size // stride) for size in x.shape[2:]]
        g.free_size = g.free_size and stride == 1
    else:
        reach = dilation * (k - 1) + 1
        low = max(0, reach - smallest)
        before, after = g.between(0, 2), max(low, g.between(0, 2))
        attributes["pads"] = [before] * space + [after] * space
        sizes = [pooled_size(size, k, stride, before + after, dilation) for size in x.shape[2:]]
    bias = [g.floats(g.vector(width))] if g.chance(0.7) else []
    return g.add("Conv", [x, weight, *bias], (x.shape[0], width, *sizes), kernel_shape=[k] * space, **attributes)


def transposed_convolution(g: Growing) -> Tensor:
    x = g.image()
    space, c = x.rank - 2, x.shape[1]
    k, stride = g.pick([1, 2, 3]), g.pick([1, 2])
    group = g.pick([d for d in range(1, c + 1) if c % d == 0])
    each = g.between(1, max(1, 6 // group))
    weight = g.floats(g.sparse((c, each, *[k] * space), 1, 0))
    pad = g.between(0, (k - 1) // 2)
    extra = g.between(0, stride - 1)
    sizes = [(size - 1) * stride + k - 2 * pad + extra for size in x.shape[2:]]
    bias = [g.floats(g.vector(each * group))] if g.chance(0.7) else []
    return g.add(
        "ConvTranspose", [x, weight, *bias], (x.shape[0], each * group, *sizes), group=group, kernel_shape=[k] * space,
        strides=[stride] * space, pads=[pad] * 2 * space, output_padding=[extra] * space,
    )  # fmt: skip


def deformable_convolution(g: Growing) -> Tensor:
    x = g.picture()
    n, c, h, w = x.shape
    k, width = g.pick([1, 3]), g.between(2, 8)
    g.free_batch = g.free_size = False
    offset = g.floats(g.rng.uniform(-1, 1, (n, 2 * k * k, h, w)))
    bias = g.floats(g.vector(width)) if g.chance(0.6) else ""
    mask = [g.floats(g.rng.uniform(0, 1, (n, k * k, h, w)))] if g.chance(0.5) else []
    weight = g.floats(g.sparse((width, c, k, k)))
    pads, shape = [k // 2] * 4, (n, width, h, w)
    return g.add("DeformConv", [x, weight, offset, bias, *mask], shape, kernel_shape=[k, k], pads=pads)


def gemm(g: Growing) -> Tensor:
    x = g.matrix()
    width, trans = g.between(1, 8), g.between(0, 1)
    shape = (width, x.shape[1]) if trans else (x.shape[1], width)
    weight = g.floats(g.sparse(shape, 1 - trans, trans))
    bias = g.pick([g.vector(width), g.vector(width)[None], np.array(0.3)])
    return g.add(
        "Gemm",
        [x, weight, g.floats(bias)],
        (x.shape[0], width),
        transB=trans,
        alpha=g.pick([1.0, 0.5]),
        beta=g.pick([1.0, 2.0]),
    )


def matmul(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    if x.rank > 2:
        g.free_size = False
    width = g.between(1, 8)
    if x.rank > 2 and g.chance(0.25):
        y = g.add("MatMul", [g.floats(g.sparse((width, x.shape[-2]))), x], (*x.shape[:-2], width, x.shape[-1]))
        return g.add("Add", [y, g.floats(g.vector(width)[:, None])], y.shape) if g.chance(0.6) else y
    y = g.add("MatMul", [x, g.floats(g.sparse((x.shape[-1], width), 1, 0))], (*x.shape[:-1], width))
    return g.add("Add", [y, g.floats(g.vector(width))], y.shape) if g.chance(0.6) else y


# --- normalisation


def batch_normalization(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    c = x.shape[1]
    values = [g.vector(c, 0.15), g.vector(c), g.vector(c), g.rng.uniform(0.3, 2, c)]
    return g.add("BatchNormalization", [x, *map(g.floats, values)], x.shape, epsilon=g.pick([1e-5, 1e-3]))


def instance_normalization(g: Growing) -> Tensor:
    x = g.image(2)
    values = [g.vector(x.shape[1], 0.1), g.vector(x.shape[1])]
    return g.add("InstanceNormalization", [x, *map(g.floats, values)], x.shape, epsilon=1e-2)


def layer_normalization(g: Growing, op: str = "LayerNormalization") -> Tensor:
    x = g.take(lambda t: t.rank >= 2 and t.shape[-1] > 1)
    axis = g.pick([-1, x.rank - 1, *([1] if x.rank > 2 else [])])
    shape = x.shape[axis:]
    g.free_size = g.free_size and x.rank == 2
    values = [g.rng.standard_normal(shape)] * (1 if op == "RMSNormalization" else g.between(1, 2))
    return g.add(op, [x, *map(g.floats, values)], x.shape, axis=axis, epsilon=1e-2)


def group_normalization(g: Growing) -> Tensor:
    x = g.image()
    c = x.shape[1]
    groups = g.pick([d for d in range(1, c + 1) if c % d == 0])
    count = c if g.opset >= 21 else groups
    values = [g.floats(g.vector(count)), g.floats(g.vector(count))]
    return g.add("GroupNormalization", [x, *values], x.shape, num_groups=groups, epsilon=1e-2)


def local_response(g: Growing) -> Tensor:
    x = g.picture()
    return g.add("LRN", [x], x.shape, size=g.pick([1, 3, 5]), alpha=0.5)


def lp_normalization(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    y = g.add("Add", [x, g.floats(3.0)], x.shape)
    return g.add("LpNormalization", [y], x.shape, axis=g.pick([1, -1, 0]), p=g.pick([1, 2]))


def mean_variance(g: Growing) -> Tensor:
    x = g.picture(3)
    axes = g.pick([[0, 2, 3], [2, 3]])
    g.free_batch = g.free_size = False
    x = g.add("Add", [x, g.floats(g.rng.standard_normal(x.shape[1:]))], x.shape)  # it divides by the deviation
    return g.add("MeanVarianceNormalization", [x], x.shape, axes=axes)


# --- pooling and sampling


def pool(g: Growing, op: str) -> Tensor:
    x = g.image(2)
    space = x.rank - 2
    k, stride = g.pick([2, 3]), g.pick([1, 2])
    before = g.between(0, k - 1) if op != "LpPool" or g.opset >= 11 else 0
    after = max(k - min(x.shape[2:]) - before, g.between(0, k - 1), 0)
    attributes: dict[str, Any] = {"pads": [before] * space + [after] * space}
    if op == "AveragePool":
        attributes["count_include_pad"] = g.between(0, 1)
    if op == "LpPool":
        attributes["p"] = g.pick([1, 2])
    sizes = [pooled_size(size, k, stride, before + after) for size in x.shape[2:]]
    g.free_size = g.free_size and stride == 1
    return g.add(op, [x], (*x.shape[:2], *sizes), kernel_shape=[k] * space, strides=[stride] * space, **attributes)


def global_pool(g: Growing, op: str) -> Tensor:
    x = g.image()
    attributes = {"p": g.pick([1, 2])} if op == "GlobalLpPool" else {}
    return g.add(op, [x], (*x.shape[:2], *[1] * (x.rank - 2)), **attributes)


def resize(g: Growing) -> Tensor:
    x = g.picture()
    factor = g.pick([2, 3])
    shape = (*x.shape[:2], *(size * factor for size in x.shape[2:]))
    mode = g.pick(["nearest", "linear"])
    if g.opset < 11:
        scales = g.constant(np.array([1, 1, factor, factor], np.float32))
        return g.add("Resize", [x, scales], shape, mode=mode)
    attributes: dict[str, Any] = {"mode": g.pick([mode, "cubic"])}
    attributes["coordinate_transformation_mode"] = g.pick(
        ["asymmetric", "half_pixel", "align_corners", "tf_crop_and_resize"]
    )
    roi = ""
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        roi = g.constant(np.array([0, 0, 0, 0, 1, 1, 1.3, 1.2], np.float32))
        attributes["extrapolation_value"] = 0.7
    elif g.opset == 11 or g.opset == 12:
        roi = g.constant(np.zeros(0 if g.opset > 12 else 8, np.float32))
    if attributes["mode"] == "nearest":
        attributes["nearest_mode"] = "floor"
    if g.chance(0.5):
        scales = g.constant(np.array([1, 1, factor, factor], np.float32))
        return g.add("Resize", [x, roi, scales], shape, **attributes)
    g.free_size = g.free_batch = False
    return g.add(
        "Resize",
        [x, roi, "" if g.opset >= 13 else g.constant(np.zeros(0, np.float32)), g.ints(*shape)],
        shape,
        **attributes,
    )


def upsample(g: Growing) -> Tensor:
    x = g.picture()
    shape = (*x.shape[:2], *(size * 2 for size in x.shape[2:]))
    mode = g.pick(["nearest", "linear"])
    if g.opset < 9:
        return g.add("Upsample", [x], shape, mode=mode, scales=[1.0, 1.0, 2.0, 2.0])
    return g.add("Upsample", [x, g.constant(np.array([1, 1, 2, 2], np.float32))], shape, mode=mode)


def grid_sample(g: Growing) -> Tensor:
    x = g.picture()
    g.free_batch = False
    grid = g.constant(g.rng.uniform(-1.2, 1.2, (x.shape[0], 4, 5, 2)).astype(g.dtype))
    modes = ["linear", "nearest"] if g.opset >= 20 else ["bilinear", "nearest"]
    padding = g.pick(["zeros", "border", "reflection"])
    return g.add("GridSample", [x, grid], (*x.shape[:2], 4, 5), mode=g.pick(modes), padding_mode=padding)


def roi_align(g: Growing) -> Tensor:
    x = g.picture()
    rois = g.constant(np.array([[0, 0, 3, 3], [1, 0.5, 4, 4.5], [-2, -2, 2, 2]], g.dtype))
    index = g.constant(np.array([0, 0, 0], np.int64))
    attributes: dict[str, Any] = {
        "mode": g.pick(["avg", "max"]),
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": 2,
    }
    g.free_batch = False
    return g.add("RoiAlign", [x, rois, index], (3, x.shape[1], 2, 3), **attributes)


def roi_pool(g: Growing) -> Tensor:
    x = g.picture()
    rois = g.constant(np.array([[0, 0, 0, 3, 3], [0, 1, 1, 4, 4]], g.dtype))
    g.free_batch = False
    return g.add("MaxRoiPool", [x, rois], (2, x.shape[1], 2, 2), pooled_shape=[2, 2])
