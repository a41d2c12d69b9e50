"""Generators of functions of values: of one operand, of several, and conversions."""

from typing import Any

import numpy as np
from onnx import TensorProto

from zoo.random_graphs import Growing, Tensor

# --- functions of one operand


def bounded(g: Growing, x: Tensor, low: float, high: float) -> Tensor:
    """Return x within [low, high], smoothly."""
    y = g.add("Tanh", [x], x.shape)
    y = g.add("Mul", [y, g.floats((high - low) / 2)], x.shape)
    return g.add("Add", [y, g.floats((high + low) / 2)], x.shape)


#: Where a function is defined, and steep no more than rounding allows.
INTERVALS = {
    "Acos": (-0.9, 0.9), "Acosh": (1.2, 4), "Asin": (-0.9, 0.9), "Asinh": (-3, 3), "Atanh": (-0.9, 0.9), "Exp": (-3, 2),
    "Cosh": (-2, 2), "Sinh": (-2, 2), "Log": (0.2, 5), "Reciprocal": (0.3, 3), "Sqrt": (0.1, 5), "Tan": (-1, 1),
}  # fmt: skip
ATTRIBUTES: dict[str, dict[str, float]] = {
    "Celu": {"alpha": 0.7}, "Elu": {"alpha": 0.4}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "LeakyRelu": {"alpha": 0.2}, "Selu": {"gamma": 1.1}, "Shrink": {"lambd": 0.3, "bias": 0.1}, "Swish": {"alpha": 1.2},
    "ThresholdedRelu": {"alpha": 0.4},
}  # fmt: skip


def unary(g: Growing, op: str) -> Tensor:
    x = g.take()
    if op in INTERVALS:
        x = bounded(g, x, *INTERVALS[op])
    if op in ("Floor", "Ceil", "Round", "Sign"):
        x = g.add("Add", [x, g.floats(0.37)], x.shape)  # zeros and biases must not lie on a step
    return g.add(op, [x], x.shape, **ATTRIBUTES.get(op, {}))


def clip(g: Growing) -> Tensor:
    x = g.take()
    low, high = g.pick([(0.0, 6.0), (-0.5, 0.5), (0.2, 3.0)])
    if g.opset < 11:
        return g.add("Clip", [x], x.shape, min=low, max=high)
    return g.add("Clip", [x, g.pick([g.floats(low), ""]), g.floats(high)], x.shape)


def gelu(g: Growing) -> Tensor:
    x = g.take()
    return g.add("Gelu", [x], x.shape, approximate=g.pick(["none", "tanh"]))


def as_number(g: Growing, x: Tensor) -> Tensor:
    return g.add("Cast", [x], x.shape, to=g.kind)


def truth(g: Growing, x: Tensor, level: float = 0.21) -> Tensor:
    return g.add("Greater", [x, g.floats(level)], x.shape, TensorProto.BOOL)


def test_of_one(g: Growing, op: str) -> Tensor:
    x = g.take()
    y = (
        g.add("Not", [truth(g, x)], x.shape, TensorProto.BOOL)
        if op == "Not"
        else g.add(op, [x], x.shape, TensorProto.BOOL)
    )
    return as_number(g, y)


def whole(g: Growing, x: Tensor) -> Tensor:
    y = g.add("Add", [g.add("Mul", [x, g.floats(3.0)], x.shape), g.floats(0.37)], x.shape)
    return g.add("Cast", [g.add("Round", [y], x.shape)], x.shape, TensorProto.INT32, to=TensorProto.INT32)


def bitwise(g: Growing, op: str) -> Tensor:
    x = bounded(g, g.take(), -5, 5)
    a = whole(g, x)
    b = g.constant(g.rng.integers(-7, 7, (x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else ()).astype(np.int32))
    return as_number(g, g.add(op, [a] if op == "BitwiseNot" else [a, b], x.shape, TensorProto.INT32))


# --- functions of several operands


def partner(g: Growing, x: Tensor, scale: float = 1.0) -> tuple[Tensor | str, tuple[int, ...]]:
    """Return a second operand that broadcasts with `x`, and the shape of the result."""
    c = x.shape[1] if x.rank > 1 else 1
    same = [t for t in g.tensors if t.shape == x.shape and t.kind == x.kind]
    gates = [
        t
        for t in g.tensors
        if t.kind == x.kind and t.rank == x.rank > 2 and t.shape[:2] == x.shape[:2] and max(t.shape[2:]) == 1
    ]
    kind = g.between(0, 6)
    if kind == 0 and gates:
        return g.pick(gates), x.shape
    if kind <= 2 and same:
        return g.pick(same), x.shape
    if kind == 3 and x.rank >= 3:  # a second branch, of the same width
        weight = g.floats(g.sparse((c, c, *[1] * (x.rank - 2))))
        return g.add("Conv", [x, weight, g.floats(g.vector(c))], x.shape, kernel_shape=[1] * (x.rank - 2)), x.shape
    if kind == 4:
        return g.floats(g.vector(1)[0] * scale), x.shape
    if kind == 5 and x.rank > 2:  # one channel on the other side stretches over all
        mean = g.add("GlobalAveragePool", [x], (*x.shape[:2], *[1] * (x.rank - 2)))
        return mean, x.shape
    values = g.vector(c, 0.35) * scale
    shape = (1,) * g.between(0, 1) + (c, *[1] * (x.rank - 2))
    return g.floats(values.reshape(shape if x.rank > 1 else ())), x.shape


def binary(g: Growing, op: str) -> Tensor:
    x = g.take()
    other, shape = partner(g, x)
    operands = [x, other] if g.chance(0.7) else [other, x]
    return g.add(op, operands, shape)


def division(g: Growing) -> Tensor:
    x = g.take()
    other, shape = partner(g, x)
    if isinstance(other, str):
        return g.add(
            "Div",
            [x, g.floats(g.rng.uniform(0.5, 2, (x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else ()))],
            shape,
        )
    return g.add("Div", [x, bounded(g, other, 0.5, 2)], shape)


def power(g: Growing) -> Tensor:
    x = bounded(g, g.take(), 0.3, 2)
    exponent = g.pick([2.0, 0.5, g.rng.uniform(0, 3, (x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else ())])
    return g.add("Pow", [x, g.floats(exponent)], x.shape)


def modulo(g: Growing) -> Tensor:
    x = g.take()
    y = g.add("Add", [x, g.floats(0.37)], x.shape)
    return g.add("Mod", [y, g.floats(50.0)], x.shape, fmod=1)


def several(g: Growing, op: str) -> Tensor:
    x = g.take()
    others = [partner(g, x)[0] for _ in range(g.between(1, 2))]
    return g.add(op, [x, *others], x.shape)


def gated(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    scaled = g.add("Mul", [x, g.floats(g.vector(1)[0] + 0.3)], x.shape)
    return g.add("SwiGLU", g.pick([[x, scaled], [scaled, x]]), x.shape, alpha=g.pick([1.0, 1.4]))


def prelu(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    slope = g.pick([np.array([0.2]), g.vector(x.shape[1]).reshape(-1, *[1] * (x.rank - 2))])
    return g.add("PRelu", [x, g.floats(slope)], x.shape)


def comparison(g: Growing, op: str) -> Tensor:
    x = g.take()
    level = g.floats(g.pick([0.21, g.rng.uniform(-1, 1, (x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else ())]))
    return as_number(g, g.add(op, [x, level], x.shape, TensorProto.BOOL))


def logical(g: Growing, op: str) -> Tensor:
    x = g.take()
    a = truth(g, x)
    c = (x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else ()
    b: Any = g.pick([truth(g, x, -0.33), g.constant(np.asarray(g.rng.random(c) < 0.5))])
    return as_number(g, g.add(op, [a, b], x.shape, TensorProto.BOOL))


def where(g: Growing) -> Tensor:
    x = g.take()
    c = (x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else ()
    condition: Any = g.pick([truth(g, x), g.constant(np.asarray(g.rng.random(c) < 0.5))])
    operands = [x, partner(g, x)[0]]
    return g.add("Where", [condition, *(operands if g.chance(0.5) else operands[::-1])], x.shape)


def dropout(g: Growing) -> Tensor:
    x = g.take()
    if g.opset >= 12:
        return g.add("Dropout", [x, g.pick(["", g.constant(np.float32(0.3))])], x.shape)
    return g.add("Dropout", [x], x.shape, ratio=0.3)


def cast(g: Growing) -> Tensor:
    x = bounded(g, g.take(), -9, 9)
    kind = g.pick([TensorProto.DOUBLE, TensorProto.FLOAT])
    return as_number(g, g.add("Cast", [x], x.shape, kind, to=kind))


def cast_like(g: Growing) -> Tensor:
    x = g.take()
    y = g.add("Cast", [x], x.shape, TensorProto.DOUBLE, to=TensorProto.DOUBLE)
    return g.add("CastLike", [y, g.floats(g.vector(1))], x.shape)


def quantised(g: Growing) -> Tensor:
    """Return x rounded to eight bits and back, per tensor or per channel."""
    x = g.add("Add", [g.take(lambda t: t.rank >= 2), g.floats(0.0041)], ())
    source = g.nodes[-1].input[0]
    x = Tensor(x.name, next(t.shape for t in g.tensors if t.name == source), g.kind)
    g.tensors[-1] = x
    scale, zero = g.constant(np.float32(0.05)), g.constant(np.uint8(g.between(0, 128)))
    attributes: dict[str, int] = {}
    if g.opset >= 13 and g.chance(0.4):
        c = x.shape[1]
        scale = g.constant(g.rng.uniform(0.02, 0.1, c).astype(np.float32))
        zero, attributes = g.constant(g.rng.integers(0, 128, c).astype(np.uint8)), {"axis": 1}
    y = g.add("QuantizeLinear", [x, scale, zero], x.shape, TensorProto.UINT8, **attributes)
    return g.add("DequantizeLinear", [y, scale, zero], x.shape, **attributes)


def quantised_weight(g: Growing) -> Tensor:
    """Return a convolution whose weight is stored in eight bits, with a scale per filter or one for all."""
    x = g.image()
    width, c = g.between(2, 8), x.shape[1]
    weight = np.clip(np.round(g.sparse((width, c, *[1] * (x.rank - 2))) * 40), -127, 127).astype(np.int8)
    name, attributes = g.constant(weight), {}
    scale, zero = g.constant(np.float32(0.03)), g.constant(np.int8(0))
    if g.opset >= 13 and g.chance(0.6):
        scale = g.constant(g.rng.uniform(0.01, 0.05, width).astype(np.float32))
        zero, attributes = g.constant(np.zeros(width, np.int8)), {"axis": 0}
    w = g.add("DequantizeLinear", [name, scale, zero], weight.shape, **attributes)
    g.tensors.remove(w)
    return g.add(
        "Conv",
        [x, w, g.floats(g.vector(width))],
        (x.shape[0], width, *x.shape[2:]),
        kernel_shape=[1] * (x.rank - 2),
    )
