"""How far two tensors are apart, channel by channel, over the scale that each channel has.

Boxes in pixels beside class scores of 0 to 1 have scales of their own, so one scale for the tensor would hide what
happens to the scores. Which axis holds the channels no graph says. Every axis that has the same size on all inputs is
taken for it, one after the other: along an axis of positions all slices have about one scale, so nothing is lost.
The scale of a channel is the largest share of the tensor's scale that it reaches on any input, times the tensor's
scale on this one: a score that happens to be near zero on one input is not held to that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from onnx_shift.onnx_pruner.verification.engines import Array

#: Differences below this many units in the last place at the tensor's scale are rounding: channels share sums.
ROUNDING_UNITS = 4
#: The least scale of a tensor over that on the first input: a tensor that vanishes on an input is rounding noise there.
LEAST_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class Measure:
    """Two tensors compared: differences per slice of each axis, and the first tensor's scales.

    Of floats `difference` and `differences` are absolute, of others shares of the elements that differ; infinite
    where shape, type or places of finite values differ.
    """

    reshaped: bool
    floating: bool
    difference: float
    scale: float
    differences: tuple[Array, ...]
    scales: tuple[Array, ...]


@dataclass(frozen=True)
class Excess:
    """The largest difference in units of what is allowed; difference and allowance are over the channel's scale."""

    ratio: float
    difference: float
    allowed: float


def is_float(x: Array) -> bool:
    """Whether a tensor holds floating-point numbers, those of the types that numpy lacks among them."""
    return x.dtype.kind == "f" or (x.dtype.isbuiltin == 2 and not x.dtype.name.startswith(("int", "uint")))


def rounding_unit(x: Array) -> float:
    """Return the distance from 1 to the next number of the tensor's type; 0 when it holds no floats."""
    return float(ml_dtypes.finfo(x.dtype).eps) if is_float(x) else 0.0  # type: ignore[no-untyped-call]


def measure(x: Array, y: Array) -> Measure:
    """Compare `y` with `x`, which gives the scale."""
    floating = is_float(x)
    comparable = x.shape == y.shape and x.dtype == y.dtype
    reshaped = x.shape != y.shape
    if not floating:
        share = (float(np.mean(x != y)) if x.size else 0.0) if comparable else math.inf
        return Measure(reshaped, False, share, 1.0, (), ())
    a = _wide(x)
    finite = np.isfinite(a)
    size = np.where(finite, np.abs(a), 0)
    scales = _along_axes(size)
    scale = max(float(size.max(initial=0)), 1e-12)
    if not comparable:
        return Measure(reshaped, True, math.inf, scale, (), scales)
    b = _wide(y)
    if not np.array_equal(finite, np.isfinite(b)):
        return Measure(reshaped, True, math.inf, scale, (), scales)
    apart = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=finite))
    return Measure(reshaped, True, float(apart.max(initial=0)), scale, _along_axes(apart), scales)


def _wide(x: Array) -> Array:
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def _along_axes(values: Array) -> tuple[Array, ...]:
    """Return the largest value of each slice, per axis; one slice for a scalar."""
    if values.ndim == 0:
        return (values.reshape(1),)
    every = range(values.ndim)
    return tuple(values.max(axis=tuple(k for k in every if k != axis), initial=0) for axis in every)


def excesses(
    measures: Sequence[Measure],
    tolerance: float,
    rounding: float,
    own: Sequence[Sequence[Measure]] = (),
    slack: float = 0.0,
) -> list[Excess]:
    """Hold one output on all inputs to `tolerance` of its channels' scales; not to less than `rounding` of its own.

    `own`: for each input how far the original alone moves when it is computed in other ways, which is allowed
    `slack` times. Of tensors that are no floats `tolerance` is the share of elements that may differ.
    """
    least = LEAST_SCALE * measures[0].scale if measures else 0.0
    shares = _shares(measures)
    found = []
    for index, one in enumerate(measures):
        others = own[index] if index < len(own) else ()
        if not one.floating or math.isinf(one.difference):
            moved = max((other.difference for other in others), default=0.0)
            allowed = max(tolerance, slack * moved) if not math.isinf(moved) else math.inf
            ratio = 0.0 if math.isinf(allowed) else one.difference / allowed
            found.append(Excess(ratio, one.difference, allowed if not math.isinf(allowed) else tolerance))
            continue
        scale = max(one.scale, least)
        per_axis = (_excess(one, scale, axis, share, tolerance, rounding, others, slack) for axis, share in shares)
        found.append(max(per_axis, key=lambda excess: excess.ratio))
    return found


def _shares(measures: Sequence[Measure]) -> list[tuple[int, Array]]:
    """Return, for each axis whose size never changes, which share of the tensor's scale each slice reaches."""
    found: list[tuple[int, Array]] = [(-1, np.ones(1))]  # the tensor as a whole
    floating = [one for one in measures if one.floating]
    ranks = {len(one.scales) for one in floating}
    axes = range(ranks.pop() if len(ranks) == 1 else 0)
    return found + [
        (axis, np.max([one.scales[axis] / one.scale for one in floating], axis=0))
        for axis in axes
        if len({len(one.scales[axis]) for one in floating}) == 1
    ]


def _excess(
    one: Measure,
    scale: float,
    axis: int,
    share: Array,
    tolerance: float,
    rounding: float,
    others: Sequence[Measure],
    slack: float,
) -> Excess:
    def of(measured: Measure) -> Array:
        return np.asarray([measured.difference]) if axis < 0 else measured.differences[axis]

    apart = of(one)
    if not apart.size:
        return Excess(0.0, 0.0, tolerance)
    scales = np.maximum(scale * share.astype(np.float64), 1e-12)
    reference = np.maximum(scales, rounding * scale / tolerance)  # what a difference is told relative to
    allowed = tolerance * reference
    for other in others:
        if not math.isinf(other.difference):
            # What rounding does to most channels it may do to any: one sample of it is no bound for a single number.
            moved = np.maximum(of(other), np.median(of(other) / scales) * scales)
            allowed = np.maximum(allowed, slack * moved)
    worst = int(np.argmax(apart / allowed))
    return Excess(
        float(apart[worst] / allowed[worst]),
        float(apart[worst] / reference[worst]),
        float(allowed[worst] / reference[worst]),
    )
