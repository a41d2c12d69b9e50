"""Weights and biases of layers that lost channels, in every type."""

import numpy as np
import onnx
import pytest

from tests.onnx_pruner.conftest import Exact, bias, weight


@pytest.mark.parametrize("length", [7, 8])  # as many positions as channels: a bias along the wrong axis would fit
def test_constants_move_into_the_bias_of_a_matmul_with_the_weight_on_the_left(exact: Exact, length: int) -> None:
    text = f"""g (float[N,3,{length}] x) => (float[N,8,{length}] y) {{
        a = MatMul(w1, x)
        b = Add(a, b1)
        y = MatMul(w2, b)
    }}"""
    weights = {"w1": weight(8, 3, dead=(2, 5)), "b1": bias(8)[:, None], "w2": weight(8, 8, seed=1)}
    pruned = exact(text, weights)
    assert pruned.weight("a", 0) == (6, 3)
    assert pruned.operators() == ["MatMul", "Add", "MatMul", "Add"]


def test_float16(exact: Exact) -> None:
    text = """g (float16[N,3,6,6] x) => (float16[N,4,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        n = BatchNormalization(a, gamma, beta, mean, var)
        r = Relu(n)
        y = Conv<pads=[1,1,1,1]>(r, w2, b2)
    }"""
    weights = {
        "w1": weight(8, 3, 3, 3, dead=(2, 5)), "b1": bias(8), "w2": weight(4, 8, 3, 3, seed=1), "b2": bias(4),
        "gamma": bias(8), "beta": bias(8), "mean": bias(8), "var": bias(8),
    }  # fmt: skip
    pruned = exact(text, {k: v.astype(np.float16) for k, v in weights.items()}, tolerance=5e-3)
    assert pruned.weight("n")[0] == 7
    assert {t.data_type for t in pruned.model.graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_float64(exact: Exact) -> None:
    text = """g (double[N,6] x) => (double[N,4] y) {
        a = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w1, b1)
        r = Relu(a)
        y = Gemm<transB=1, alpha=0.5, beta=2.0>(r, w2, b2)
    }"""
    weights = {"w1": weight(8, 6, dead=(2, 5)), "b1": bias(8), "w2": weight(4, 8, seed=1), "b2": bias(4)}
    pruned = exact(text, {k: v.astype(np.float64) for k, v in weights.items()}, tolerance=1e-12)
    assert pruned.weight("a") == (6, 6)


@pytest.mark.parametrize("per_axis", [False, True])
def test_quantised_weights_stay_quantised(exact: Exact, per_axis: bool) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        i = Identity(s1)
        f = DequantizeLinear<axis=0>(q1, i, z1)
        a = Conv(x, f, b1)
        r = Relu(a)
        g = DequantizeLinear(q2, s2)
        y = Conv(r, g)
    }"""
    rng = np.random.default_rng(0)
    q1, q2 = (
        rng.integers(-9, 10, (8, 3, 1, 1)).astype(np.int8),
        rng.integers(-9, 10, (4, 8, 1, 1)).astype(np.int8),
    )
    q1[[1, 4]] = 0
    q2[:, 6] = 0
    count = (8,) if per_axis else ()
    weights = {
        "q1": q1, "s1": np.full(count, 0.1, np.float32), "z1": np.zeros(count, np.int8), "b1": bias(8, _1=-1, _4=-2),
        "q2": q2, "s2": np.float32(0.2),
    }  # fmt: skip
    pruned = exact(text, weights)
    sizes = {tuple(t.dims) for t in pruned.model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    assert {(5, 3, 1, 1), (4, 5, 1, 1)} <= sizes
    assert pruned.operators().count("DequantizeLinear") == 2


@pytest.mark.parametrize("reader", ["w2 = Identity(w)", ""], ids=["copied", "itself"])
def test_a_weight_that_is_an_output_stays_whole(exact: Exact, reader: str) -> None:
    name = "w2" if reader else "w"
    text = f"""g (float[N,3,6,6] x) => (float[N,4,2,2] y, float[4,8,1,1] {name}) {{
        c = Conv(x, w1, b1)
        r = Relu(c)
        y = Conv(r, w)
        {reader}
    }}"""
    weights = {"w1": weight(8, 3, 5, 5, dead=(1, 2)), "b1": -bias(8), "w": weight(4, 8, 1, 1)}
    assert exact(text, weights).weight("c") == (6, 3, 5, 5)


@pytest.mark.parametrize(("kind", "arithmetic"), [(np.float16, False), (np.int8, True)])
def test_weights_stored_in_a_narrower_type_stay_narrow(exact: Exact, kind: type, arithmetic: bool) -> None:
    first, second = ((weight(*shape) * 20).astype(kind) for shape in ((32, 3, 3, 3), (16, 32, 3, 3)))
    first[:4] = 0
    wide = "k = Mul(c, s)" if arithmetic else "k = Identity(c)"
    text = f"""g (float[N,3,8,8] x) => (float[N,16,4,4] y) {{
        c = Cast<to=1>(a) {wide}
        h = Conv(x, k)
        r = Relu(h)
        u = Cast<to=1>(b) v = Transpose<perm=[1,0,2,3]>(u)
        y = Conv(r, v)
    }}"""
    scale = {"s": weight(32, 1, 1, 1)} if arithmetic else {}
    pruned = exact(text, {"a": first, "b": np.ascontiguousarray(second.swapaxes(0, 1)), **scale})
    left = {tensor.data_type: 0 for tensor in pruned.model.graph.initializer}
    for tensor in pruned.model.graph.initializer:
        left[tensor.data_type] += int(np.prod(tensor.dims))
    stored = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    assert left[stored] == 28 * 3 * 9 + 16 * 28 * 9
    assert left.get(onnx.TensorProto.FLOAT, 0) == (28 if arithmetic else 0)


def test_constants_in_many_padded_layers_stand_for_each_other_once(exact: Exact) -> None:
    count = 40
    nodes, weights = ["t0 = Conv(x, w0, b0)"], {"w0": weight(8, 3, 1, 1, dead=(1, 2, 3)), "b0": bias(8)}
    weights["b0"][[1, 2, 3]] = 1.0, 2.0, 3.0
    for k in range(1, count):
        nodes.append(f"t{k} = Conv<pads=[1,1,1,1]>(t{k - 1}, w{k}, b{k})")
        weights |= {f"w{k}": weight(8, 8, 3, 3, dead=(1, 2, 3)) * 0.1, f"b{k}": bias(8)}
        weights[f"b{k}"][[1, 2, 3]] = 1.0, 2.0, 3.0
    nodes.append(f"y = Conv<pads=[1,1,1,1]>(t{count - 1}, w, b)")
    weights |= {"w": weight(4, 8, 3, 3), "b": bias(4)}
    pruned = exact(f"g (float[N,3,4,4] x) => (float[N,4,4,4] y) {{ {' '.join(nodes)} }}", weights)
    assert [pruned.weight(f"t{k}")[0] for k in range(count)] == [6] * count  # one of three constants stands
