"""Values that do not depend on the input."""

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.graph import constants as constants_module
from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.network import open_network
from onnx_shift.onnx_pruner.graph.reading import read_model
from tests.onnx_pruner.conftest import Exact, bias, build, ints, weight


def test_a_constant_of_nothing_is_refused() -> None:
    nothing = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { k = Constant () y = Add (x, k) }'
    )
    with pytest.raises(PruneError, match="onnxruntime cannot run it"):
        prune(nothing)


def test_weights_behind_other_nodes(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4] y) {
        i = Identity(w1)
        a = Conv(x, i)
        r = Relu(a)
        m = GlobalAveragePool(r)
        f = Flatten(m)
        t = Transpose<perm=[1,0]>(w2)
        y = MatMul(f, t)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, unread=(6,), seed=1)})
    assert pruned.weight("a")[0] == 5
    assert pruned.weight("y") == (5, 4)


def test_weights_of_eight_bit_floats_are_no_whole_numbers(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        w = DequantizeLinear(q, s)
        c = Conv(x, w)
        r = Relu(c)
        y = Conv(r, w2)
    }"""
    small = (weight(8, 3, 1, 1, dead=(1,)) / 4).astype(ml_dtypes.float8_e4m3fn)
    pruned = exact(text, {"q": small, "s": np.float32(1), "w2": weight(4, 8, 1, 1)}, opset=19)
    assert pruned.report.channels_removed == 1


def test_numbers_outside_their_type_are_no_constants(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1, b1)
        u = Cast<to=13>(c)
        f = Cast<to=1>(u)
        y = Conv(f, w2)
    }"""
    weights = {"w1": np.zeros((8, 3, 1, 1), np.float32), "b1": bias(8, _1=-2.5), "w2": weight(4, 8, 1, 1)}
    model = build(text, weights, 17)
    assert prune(model, align=1, verify=False).report.channels_removed < 8


def test_constants_behind_a_thousand_nodes_are_known(exact: Exact) -> None:
    chain = " ".join(f"k{k + 1} = Add(k{k}, zero)" for k in range(1000))
    text = f"g (float[N,3,4,4] x) => (float[N,4,4,4] y) {{ {chain} c = Conv(x, k1000) y = Conv(c, b) }}"
    weights = {"k0": weight(8, 3, 1, 1, dead=(1, 2)), "zero": np.float32(0), "b": weight(4, 8, 1, 1)}
    assert exact(text, weights).weight("c") == (6, 3, 1, 1)


# name, how a bias of 8 zeros is written from x (1, 3, 6, 6)
BIASES = [
    ("CastLike", "z = CastLike(zero, x) b1 = Expand(z, eight)"),
    ("CastLike of whole numbers", "z = CastLike(whole, x) b1 = Expand(z, eight)"),
    ("ConstantOfShape", "b1 = ConstantOfShape(eight)"),
    ("ConstantOfShape of a part of the shape", "s = Shape<start=1, end=2>(x) t = Add(s, five) b1 = ConstantOfShape(t)"),
    ("a size that Gather picks", "s = Shape(x) g = Gather(s, one) t = Add(g, five) b1 = ConstantOfShape(t)"),
    ("Size", "s = Size(small) t = Reshape(s, one) b1 = ConstantOfShape(t)"),
    ("EyeLike", "e = EyeLike<dtype=1, k=9>(large) b1 = ReduceSum<keepdims=0>(e, one)"),
    ("EyeLike of a shape alone", "a = Reshape(x, nine) t = Transpose(a) m = MatMul(a, t) e = EyeLike<k=20>(m) "
     "s = ReduceSum<keepdims=0>(e, one) b1 = Slice(s, zero_, eight)"),
    ("Range", "e = Range(zero_0, eight_0, one_0) m = Mul(e, zero_0) b1 = CastLike(m, x)"),
]  # fmt: skip
SMALL = {
    "zero": np.float32(0), "whole": np.int32(0), "eight": ints(8), "five": ints(5), "one": ints(1), "zero_": ints(0),
    "small": np.zeros((4, 2), np.float32), "large": np.zeros((8, 8), np.int64), "zero_0": np.int64(0),
    "eight_0": np.int64(8), "one_0": np.int64(1), "nine": ints(9, 12),
}  # fmt: skip


@pytest.mark.parametrize(("name", "body"), BIASES, ids=[name for name, _ in BIASES])
def test_a_bias_worked_out_from_types_and_shapes_is_constant(exact: Exact, name: str, body: str) -> None:
    """Its zero filters go, and the BatchNormalization folds."""
    text = f"""g (float[1,3,6,6] x) => (float[1,4,6,6] y) {{
        {body}
        c = Conv<pads=[1,1,1,1]>(x, w1, b1)
        n = BatchNormalization(c, gamma, beta, mean, variance)
        r = Relu(n)
        y = Conv<pads=[1,1,1,1]>(r, w2)
    }}"""
    weights = {
        "w1": weight(8, 3, 3, 3, dead=(0, 2, 4)), "w2": weight(4, 8, 3, 3, seed=1), "gamma": weight(8, seed=2),
        "beta": np.zeros(8, np.float32), "mean": np.zeros(8, np.float32), "variance": np.ones(8, np.float32),
        **{key: value for key, value in SMALL.items() if f"{key})" in body or f"{key}," in body},
    }  # fmt: skip
    pruned = exact(text, weights, opset=21)
    assert pruned.report.batch_norms_fused == 1
    assert pruned.weight("y") == (4, 5, 3, 3)


MASKS = [
    ("mask first", "wide = Cast<to=1>(m) w1 = Mul(wide, w)"),
    ("mask last", "wide = Cast<to=1>(m) w1 = Mul(w, wide)"),
    ("mask turned", "t = Transpose<perm=[0,1,3,2]>(m) wide = Cast<to=1>(t) w1 = Mul(wide, w)"),
    ("weight behind Identity", "wide = Cast<to=1>(m) i = Identity(w) w1 = Mul(wide, i)"),
    ("CastLike", "wide = CastLike(m, x) w1 = Mul(wide, w)"),
    ("divided", "wide = Cast<to=1>(m) o = Mul(wide, wide) w1 = Mul(o, w)"),
]


@pytest.mark.parametrize(("name", "body"), MASKS, ids=[name for name, _ in MASKS])
def test_a_weight_times_its_mask_is_written_as_one_weight(exact: Exact, name: str, body: str) -> None:
    text = f"g (float[1,3,6,6] x) => (float[1,4,4,4] y) {{ {body} c = Conv(x, w1) r = Relu(c) y = Conv(r, w2) }}"
    mask = np.ones((8, 3, 3, 3), np.bool_)
    mask[::2] = False
    pruned = exact(text, {"m": mask, "w": weight(8, 3, 3, 3), "w2": weight(4, 8, 1, 1)}, opset=21)
    assert pruned.operators() == ["Conv", "Relu", "Conv"]
    assert pruned.weight("c") == (4, 3, 3, 3)


@pytest.mark.parametrize("body", ["w1 = CastLike(w, x)", "n = CastLike(w, x) w1 = Mul(n, scale)"])
def test_a_weight_stored_narrow_stays_narrow(exact: Exact, body: str) -> None:
    text = f"g (float[1,3,6,6] x) => (float[1,4,4,4] y) {{ {body} c = Conv(x, w1, b1) y = Conv(c, w2) }}"
    narrow = weight(8, 3, 3, 3, dead=(1, 2)).astype(np.float16)
    weights = {"w": narrow, "b1": bias(8), "w2": weight(4, 8, 1, 1), "scale": weight(8, 1, 1, 1)}
    pruned = exact(text, {k: v for k, v in weights.items() if k in text}, opset=21, tolerance=1e-3)
    stored = [t for t in pruned.model.graph.initializer if len(t.dims) == 4 and t.dims[-1] == 3]
    assert [(t.data_type, list(t.dims)) for t in stored] == [(10, [6, 3, 3, 3])]


@pytest.mark.parametrize("body", ["n = Size(c) f = CastLike(n, x)", "e = EyeLike(p) f = ReduceSum<keepdims=0>(e)"])
def test_the_size_of_what_is_cut_stays_the_old_one(exact: Exact, body: str) -> None:
    text = f"""g (float[1,3,6,6] x) => (float[1,4,6,6] y) {{
        c = Conv(x, w1)
        p = ReduceMax<keepdims=0>(c, axes)
        {body}
        z = Conv(c, w2)
        y = Mul(z, f)
    }}"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(1, 2)), "w2": weight(4, 8, 1, 1), "axes": ints(2, 3)}
    pruned = exact(text, weights, opset=21)
    assert pruned.weight("c") == (6, 3, 1, 1)


def test_of_large_weights_only_the_last_read_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: np.full((4, 64, 65), k, np.float32) for k, name in enumerate(("w1", "w2", "w3"))}
    text = "g (float[N,4,64,65] x) => (float[N,4,64,65] y) { a = Add(x, w1) b = Add(a, w2) y = Add(b, w3) }"
    constants = Constants(open_network(read_model(build(text, arrays, 17))))
    monkeypatch.setattr(constants_module, "RECENT_BYTES", 2 * arrays["w1"].nbytes)
    first = constants.get("w1")
    assert first is not None and first is constants.get("w1")
    assert [float(constants.get(name)[0, 0, 0]) for name in ("w2", "w3", "w1")] == [1, 2, 0]  # type: ignore[index]
    assert constants.get("w1") is not first
