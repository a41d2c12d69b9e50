"""Each operator's rule on the smallest graph that shows it: channels are counted and outputs compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.onnx_pruner.conftest import bias, weight

Exact = Callable[..., Any]


# name, body between h (8 channels, 2 and 5 constant at 0.7 and -0.4, 6 unread) and z, channels of z, options
SPATIAL = [
    ("Relu", "z = Relu(h)"),
    ("Sigmoid", "z = Sigmoid(h)"),
    ("HardSwish", "z = HardSwish(h)"),
    ("Clip", "lo = Constant<value = float {0.0}>() hi = Constant<value = float {0.5}>() z = Clip(h, lo, hi)"),
    ("LeakyRelu", "z = LeakyRelu<alpha=0.1>(h)"),
    ("PRelu", "z = PRelu(h, slope)"),
    ("Exp", "z = Exp(h)"),
    ("Softplus", "z = Softplus(h)"),
    ("Erf", "z = Erf(h)"),
    ("Cast", "d = Cast<to=11>(h) z = Cast<to=1>(d)"),
    ("Identity", "z = Identity(h)"),
    ("Dropout", "z = Dropout(h)"),
    ("Mul per channel", "z = Mul(h, slope)"),
    ("Sub from scalar", "one = Constant<value = float {1.0}>() z = Sub(one, h)"),
    ("Where", "zero = Constant<value = float {0.0}>() c = Greater(h, zero) z = Where(c, h, zero)"),
    ("MaxPool", "z = MaxPool<kernel_shape=[2,2], pads=[1,1,0,0]>(h)"),
    ("AveragePool", "z = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(h)"),
    ("AveragePool counted", "z = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(h)"),
    ("LpPool", "z = LpPool<kernel_shape=[2,2]>(h)"),
    ("GlobalAveragePool", "z = GlobalAveragePool(h)"),
    ("ReduceMean", "z = ReduceMean<axes=[2,3], keepdims=1>(h)"),
    ("ReduceMax", "z = ReduceMax<axes=[3]>(h)"),
    ("Resize", "s = Constant<value = float[4] {1.0,1.0,2.0,2.0}>() z = Resize<mode=\"linear\">(h, , s)"),
    ("InstanceNormalization", "z = InstanceNormalization(h, gamma, beta)"),
    ("InstanceNormalization of zeros", "r = Relu(h) z = InstanceNormalization(r, gamma, beta)"),
    ("BatchNormalization after Relu", "r = Relu(h) z = BatchNormalization(r, gamma, beta, mean, var)"),
    ("Pad zeros", "p = Constant<value = int64[8] {0,0,1,1,0,0,1,1}>() z = Pad(h, p)"),
    ("Pad edge", "p = Constant<value = int64[8] {0,0,1,1,0,0,1,1}>() z = Pad<mode=\"edge\">(h, p)"),
    ("Softmax over width", "z = Softmax<axis=3>(h)"),
    ("Transpose there and back", "t = Transpose<perm=[0,2,3,1]>(h) u = Relu(t) z = Transpose<perm=[0,3,1,2]>(u)"),
    ("Reshape there and back", "a = Constant<value = int64[3] {0,8,-1}>() t = Reshape(h, a) "
     "b = Constant<value = int64[4] {0,8,6,6}>() z = Reshape(t, b)"),
    ("Squeeze", "g = GlobalAveragePool(h) "
     "a = Constant<value = int64[2] {2,3}>() s = Squeeze(g, a) z = Unsqueeze(s, a)"),
    ("Squeeze without axes", "g = GlobalAveragePool(h) a = Constant<value = int64[2] {2,3}>() "
     "t = MaxPool<kernel_shape=[6,6]>(h) s = Squeeze(t, a) z = Unsqueeze(s, a)"),
    ("Expand", "g = GlobalAveragePool(h) a = Constant<value = int64[4] {1,8,6,6}>() z = Expand(g, a)"),
    ("Tile over width", "a = Constant<value = int64[4] {1,1,1,2}>() z = Tile(h, a)"),
    ("Slice over width", "a = Constant<value = int64[1] {1}>() e = Constant<value = int64[1] {4}>() "
     "x3 = Constant<value = int64[1] {3}>() z = Slice(h, a, e, x3)"),
    ("Concat over width", "z = Concat<axis=3>(h, h)"),
    ("Split over width", "a, b = Split<axis=3>(h) z = Add(a, b)"),
    ("squeeze and excite", "g = GlobalAveragePool(h) e = Conv(g, wse, bse) f = Sigmoid(e) z = Mul(h, f)"),
    ("spatial gate", "g = ReduceMean<axes=[1], keepdims=1>(x) z = Mul(h, g)"),
    ("depthwise", "z = Conv<group=8, pads=[1,1,1,1]>(h, wdw, bdw)"),
    ("depthwise unpadded", "z = Conv<group=8>(h, wdw, bdw)"),
]  # fmt: skip


# filters of 8 that stay without and with padding, where a constant other than 0 does not pass (6 is unread)
EXPECTED = {
    "AveragePool counted": (7, 7),
    "LpPool": (7, 7),
    "InstanceNormalization": (7, 7),  # rounding noise, divided by the root of epsilon
    "InstanceNormalization of zeros": (6, 7),
    "Softmax over width": (7, 7),
    "Pad zeros": (7, 7),
    "spatial gate": (7, 7),
    "squeeze and excite": (7, 7),
    "depthwise": (7, 7),
}


@pytest.mark.parametrize(("name", "body"), SPATIAL, ids=[name for name, _ in SPATIAL])
@pytest.mark.parametrize("pads", [0, 1])
def test_between_two_convolutions(exact: Exact, name: str, body: str, pads: int) -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,4,H,W] y) {{
        h = Conv(x, w1, b1)
        {body}
        y = Conv<pads=[{pads},{pads},{pads},{pads}]>(z, w2, b2)
    }}"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(2, 5)),
        "b1": bias(8, _2=0.7, _5=-0.4),
        "w2": weight(4, 8, 1, 1, unread=(6,), seed=1),
        "b2": bias(4),
        "slope": weight(8, 1, 1, seed=2),
        "gamma": weight(8, seed=3),
        "beta": weight(8, seed=4),
        "mean": weight(8, seed=5),
        "var": np.abs(weight(8, seed=6)) + 0.5,
        "wse": weight(8, 8, 1, 1, unread=(6,), seed=7),
        "bse": bias(8),
        "wdw": weight(8, 1, 3, 3, seed=8),
        "bdw": bias(8),
    }
    weights = {k: v for k, v in weights.items() if k in text}
    pruned = exact(text, weights)
    first = pruned.weight("h")[0]
    assert first == EXPECTED.get(name, (5, 6))[pads]
