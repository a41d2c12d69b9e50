"""Graphs that few exporters write and runtimes take: nothing they compute is lost, and nothing is cut that is read."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.verification import engines
from onnx_shift.onnx_pruner.verification.probes import find_domain
from tests.onnx_pruner.conftest import Array, bias, build, ints, weight

Exact = Callable[..., Any]
NORM = {
    "g": weight(6, seed=11), "o": weight(6, seed=12), "m": weight(6, seed=13),
    "v": np.abs(weight(6, seed=14)) + 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "output", "layer", "weights"),
    [
        ("float[N,3,16,16] x", "float[N,6,8,16] y",
         "c = Conv(x, w) r = Relu(c) t = Transpose<perm=[0,2,1,3]>(r) z = Conv(t, v1)",
         {"w": weight(8, 3, 1, 1), "v1": weight(6, 16, 1, 1)}),
        ("float[N,6,4,4] x", "float[N,6,4,4] y", "k1 = Conv(k, w) z = Identity(k1)",
         {"k": weight(1, 4, 4, 4), "w": weight(6, 4, 1, 1)}),
        ("float[8,N] x", "float[N,6] y", "z = Gemm<transA=1>(x, w)", {"w": weight(8, 6)}),
        ("float[4,8] x", "float[4,6] y", "z = Gemm(x, w, rows)", {"w": weight(8, 6), "rows": weight(4, 6)}),
        ("float[N,8] x", "float[N,6] y",
         "d = DequantizeLinear(q, s) t = Transpose(d) z = MatMul(x, t)",
         {"q": np.arange(-24, 24, dtype=np.int8).reshape(6, 8), "s": np.float32(0.1)}),
    ],
    ids=["channels elsewhere", "constant map", "transposed input", "bias per row", "quantised"],
)  # fmt: skip
def test_a_norm_stays_behind_what_cannot_take_it(
    exact: Exact, inputs: str, output: str, layer: str, weights: Mapping[str, Array]
) -> None:
    joined = "y = Add(x, b)" if "k1" in layer else "y = Identity(b)"
    text = f"g ({inputs}) => ({output}) {{ {layer} b = BatchNormalization(z, g, o, m, v) {joined} }}"
    pruned = exact(text, {**weights, **NORM})
    assert "BatchNormalization" in pruned.operators()


def test_a_norm_stays_behind_a_foreign_operator() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]> g (float[N,3,4,4] x) => (float[N,6,4,4] y) '
        "{ c = com.acme.Conv(x, w) y = BatchNormalization(c, g, o, m, v) }"
    )
    arrays = {"w": weight(6, 3, 1, 1), **NORM}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    pruned = prune(model, verify=False).model
    assert [node.op_type for node in pruned.graph.node] == ["Conv", "BatchNormalization"]


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


def test_the_number_of_elements_is_that_of_the_whole(exact: Exact) -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
        c = Conv(x, w1, b1)
        r = Relu(c)
        s = Size(r)
        f = Cast<to=1>(s)
        d = Conv(r, w2)
        y = Div(d, f)
    }"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(1, 2)), "b1": -bias(8), "w2": weight(4, 8, 1, 1)}
    assert exact(text, weights).weight("c") == (8, 3, 1, 1)


def test_a_resize_by_computed_scales_tells_no_size(exact: Exact) -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4,A,B] y) {
        t = Transpose<perm=[0,2,3,1]>(x)
        most = ReduceMax<keepdims=0>(x)
        nothing = Mul(most, zero)
        scales = Add(two, nothing)
        z = Resize<mode="nearest">(t, , scales)
        back = Transpose<perm=[0,3,1,2]>(z)
        a = Conv(back, w1, b1)
        r = Relu(a)
        s = Shape(r)
        h = Gather(s, at)
        to = Concat<axis=0>(one, count, h, rest)
        q = Reshape(r, to)
        y = Conv(q, w2)
    }"""
    weights = {
        "zero": np.float32(0), "two": np.asarray([1, 2, 2, 1], np.float32), "at": ints(2), "one": ints(1),
        "count": ints(16), "rest": ints(-1), "w1": weight(16, 3, 1, 1, dead=(1, 2)), "b1": -bias(16),
        "w2": weight(4, 16, 1, 1),
    }  # fmt: skip
    exact(text, weights)


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


def test_weights_in_blocks_are_left_alone(exact: Exact) -> None:
    text = """g (float[N,16] x) => (float[N,4] y) {
        w = DequantizeLinear<axis=1, block_size=4>(q, s)
        c = Gemm<transB=1>(x, w)
        r = Relu(c)
        y = MatMul(r, w2)
    }"""
    q = np.random.default_rng(0).integers(-7, 7, (8, 16)).astype(np.int8)
    q[2:4] = 0
    weights = {"q": q, "s": np.abs(weight(8, 4)) + 0.1, "w2": weight(8, 4)}
    assert exact(text, weights, opset=21).report.channels_removed == 0


def test_zeros_pass_quantised_activations(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1, b1)
        r = Relu(c)
        q = QuantizeLinear(r, s, z)
        d = DequantizeLinear(q, s, z)
        y = Conv<pads=[1,1,1,1]>(d, w2)
    }"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(1, 2, 5)),
        "b1": bias(8, _1=0, _2=-1, _5=0.3),
        "w2": weight(4, 8, 3, 3),
    }
    for scale, zero, left in (
        (np.float32(0.1), np.uint8(3), 6),
        (np.full(8, 0.07, np.float32), np.zeros(8, np.uint8), 6),
    ):
        pruned = exact(text, {**weights, "s": scale, "z": zero}, opset=13)
        assert pruned.weight("c") == (left, 3, 1, 1)


def test_a_constant_between_two_steps_of_quantisation_stays(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1, b1)
        q = QuantizeLinear(c, s, z)
        d = DequantizeLinear(q, s, z)
        y = Conv(d, w2)
    }"""
    weights = {
        "w1": weight(8, 3, 1, 1, dead=(1, 2)),
        "b1": bias(8, _1=0.25, _2=0.2),
        "w2": weight(4, 8, 1, 1),
    }
    pruned = exact(text, {**weights, "s": np.float32(0.1), "z": np.uint8(0)}, opset=13)
    assert pruned.weight("c") == (7, 3, 1, 1)


@pytest.mark.parametrize(
    ("layer", "left", "extra"),
    [
        ("p = MaxPool<kernel_shape=[1,1]>(c)", 8, {}),
        ("p = Slice(c, from, to)", 6, {"from": ints(0, 1), "to": ints(1000, 7)}),
        ("p = Concat<axis=1>(c, nothing)", 8, {"nothing": np.zeros((1, 0, 6, 6), np.float32)}),
    ],
    ids=["output without a name", "slice without axes", "concat with nothing"],
)
def test_what_is_left_out_does_not_confuse(exact: Exact, layer: str, left: int, extra: Mapping[str, Array]) -> None:
    text = f"g (float[1,3,6,6] x) => (float[1,4,6,6] y) {{ c = Conv(x, w1) {layer} y = Conv(p, w2) }}"
    weights = {"w1": weight(8, 3, 1, 1, dead=(3,)), "w2": weight(4, left, 1, 1), **extra}
    model = build(text, weights, 17)
    if "MaxPool" in layer:
        model.graph.node[1].output.append("")
    assert prune(model, align=1).report.channels_removed == (3 if left == 6 else 1)


@pytest.mark.parametrize(("gain", "variance"), [(1, 100), (0.01, 60_000)], ids=["folds", "stays"])
def test_a_norm_folds_into_half_precision_only_without_loss(gain: float, variance: float) -> None:
    text = "g (float16[N,3,6,6] x) => (float16[N,6,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, o, m, v) }"
    half = {name: array.astype(np.float16) for name, array in {"w": weight(6, 3, 1, 1), **NORM}.items()}
    half["g"], half["v"] = half["g"] * np.float16(gain), np.full(6, variance, np.float16)
    pruned = prune(build(text, half, 17), verify=False).model
    assert [node.op_type for node in pruned.graph.node] == ["Conv", *["BatchNormalization"] * (gain < 1)]


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


def test_nodes_may_come_in_any_order() -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1)
        r = Relu(c)
        s = Add(r, r)
        y = Conv(s, w2)
    }"""
    model = build(text, {"w1": weight(8, 3, 1, 1, dead=(3,)), "w2": weight(4, 8, 1, 1)}, 17)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    result = prune(model, align=1)  # compared with the model as it is
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Relu", "Add", "Conv"]
    assert result.report.channels_removed == 1
    model.graph.node[3].input[0] = "s"
    with pytest.raises(PruneError, match="fails the ONNX checker"):
        prune(model)  # in a circle


@pytest.mark.parametrize(
    ("inputs", "layer", "shape"),
    [
        ("float[N,F] x", "c = Gemm(x, w)", (784, 8)),
        ("float[N,F] x", "c = Gemm<transB=1>(x, w)", (8, 784)),
        ("float[N,L,F] x", "c = MatMul(x, w)", (50, 8)),
        ("float[N,F,T] x", "c = Conv<group=2>(x, w)", (8, 40, 3)),
    ],
)
def test_a_free_axis_is_verified_at_the_size_that_its_weights_ask(
    inputs: str, layer: str, shape: tuple[int, ...]
) -> None:
    output = inputs.replace(" x", " y").replace("F", "G").replace("T", "U")
    model = build(f"g ({inputs}) => ({output}) {{ {layer} y = Relu(c) }}", {"w": weight(*shape)}, 17)
    assert prune(model).report.verified


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


def test_a_table_that_is_also_a_weight_is_not_copied(exact: Exact) -> None:
    text = """g (int64[N,4] ids, float[N,3,6,6] x) => (float[N,4,50] scores, float[N,5,6,6] y) {
        e = Gather(E, ids)
        m = MatMul(e, L)
        h = Relu(m)
        t = Transpose<perm=[1,0]>(E)
        scores = MatMul(h, t)
        c = Conv(x, a)
        r = Relu(c)
        y = Conv(r, b)
    }"""
    middle = weight(16, 16)
    middle[:, ::2] = 0
    convolutions = {"a": weight(8, 3, 1, 1, dead=(1, 2)), "b": weight(5, 8, 1, 1)}
    pruned = exact(text, {"E": weight(50, 16), "L": middle, **convolutions})
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in pruned.model.graph.initializer}
    assert sum(sizes.values()) == 50 * 16 + 16 * 16 + 6 * 3 + 5 * 6  # elsewhere it is pruned all the same


def test_an_output_without_a_shape_is_given_the_one_that_follows() -> None:
    model = build(
        "g (float[N,3,4,4] x) => (float[N,5,4,4] y) { c = Conv(x, a) r = Relu(c) y = Conv(r, b) }",
        {"a": weight(8, 3, 1, 1, dead=(1, 2)), "b": weight(5, 8, 1, 1)},
        17,
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    pruned = prune(model, align=1)
    assert pruned.report.verified
    assert pruned.report.parameters_after == 6 * 3 + 5 * 6


def test_a_free_size_is_found_before_attention_fills_the_memory() -> None:
    model = build(
        """g (float[N,4,H,W] x) => (float[N,4,256] y) {
            f = Reshape(x, flat)
            t = Transpose<perm=[0,2,1]>(f)
            p = MatMul(t, f)
            q = Add(p, place)
            s = Softmax<axis=-1>(q)
            y = MatMul(f, s)
        }""",
        {"flat": ints(0, 4, -1), "place": weight(256, 256)},
        17,
    )
    asked: list[int] = []

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        asked.append(feeds["x"].shape[-1])
        if asked[-1] != 16:
            raise engines.CannotRunError("place")
        return []

    find_domain(run, engines.Source("attention", model, None), "onnxruntime", 0)
    assert max(asked) == 64  # 4,096 squared; 224 would take ten gigabytes


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


def test_groups_of_a_large_map_are_told_apart_without_its_size(exact: Exact) -> None:
    text = """g (float[1,3,256,256] x) => (float[1,4,256,256] y) {
        c = Conv(x, a)
        f = Reshape(c, groups)
        n = Relu(f)
        r = Reshape(n, maps)
        y = Conv(r, b)
    }"""
    dead = tuple(range(8))  # two groups of four
    weights = {"a": weight(32, 3, 1, 1, dead=dead), "b": weight(4, 32, 1, 1)}
    shapes = {"groups": ints(0, 8, -1), "maps": ints(1, 32, 256, 256)}
    assert exact(text, weights | shapes).weight("c") == (24, 3, 1, 1)


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("unread", [False, True])
def test_a_branch_of_which_nothing_stays_leaves_a_concat(exact: Exact, align: int, unread: bool) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        s = Conv(x, a)
        r = Relu(s)
        k = Conv<pads=[1,1,1,1]>(r, b)
        l = Relu(k)
        m = Conv<pads=[1,1,1,1]>(l, c)
        q = Concat<axis=1>(r, m)
        y = Conv(q, d)
    }"""
    last, branch = weight(4, 32, 1, 1), weight(16, 8, 3, 3, seed=2)
    if unread:
        last[:, 16:] = 0
    else:
        branch[:] = 0
    weights = {"a": weight(16, 3, 1, 1), "b": weight(8, 16, 3, 3), "c": branch, "d": last}
    pruned = exact(text, weights, align=align)
    assert pruned.operators() == ["Conv", "Relu", "Identity", "Conv"]
    assert pruned.weight("y") == (4, 16, 1, 1)


def test_of_branches_of_which_nothing_stays_one_stays_for_the_shape(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        k = Conv(x, a)
        l = Conv(x, b)
        q = Concat<axis=1>(k, l)
        y = Conv(q, d, e)
    }"""
    weights = {
        "a": weight(8, 3, 1, 1) * 0,
        "b": weight(8, 3, 1, 1) * 0,
        "d": weight(4, 16, 1, 1),
        "e": bias(4),
    }
    assert exact(text, weights).report.parameters_after == 3 + 4 + 4


def test_constants_behind_a_thousand_nodes_are_known(exact: Exact) -> None:
    chain = " ".join(f"k{k + 1} = Add(k{k}, zero)" for k in range(1000))
    text = f"g (float[N,3,4,4] x) => (float[N,4,4,4] y) {{ {chain} c = Conv(x, k1000) y = Conv(c, b) }}"
    weights = {"k0": weight(8, 3, 1, 1, dead=(1, 2)), "zero": np.float32(0), "b": weight(4, 8, 1, 1)}
    assert exact(text, weights).weight("c") == (6, 3, 1, 1)
