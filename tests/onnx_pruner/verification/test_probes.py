"""Inputs to try, for every kind of signature and free size."""

from collections.abc import Mapping

import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.verification import engines, probes
from onnx_shift.onnx_pruner.verification.compare import VerificationError, compare
from onnx_shift.onnx_pruner.verification.probes import find_domain
from tests.onnx_pruner.conftest import Array, build, ints, weight
from tests.onnx_pruner.verification.models import conv_model, parsed


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


def test_a_model_that_takes_long_is_tried_on_few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SLOW_SECONDS", 0.0)
    result = compare(conv_model(), conv_model(), runtimes=["onnxruntime"])
    assert result.equal
    assert result.runtimes[0].inputs == 3


GATHER = "t = Constant <value = float[7,2] {0,1,2,3,4,5,6,7,8,9,0,1,2,3}> () y = Gather (t, x)"


CONV_1X1 = "w = Constant <value = float[1,3,1,1] {1,2,3}> () y = Conv (x, w)"


RESHAPE = "s = Constant <value = int64[2] {64,64}> () y = Reshape (x, s)"


@pytest.mark.parametrize(
    ("signature", "body", "inputs"),
    [
        ("(int64[N] x) => (float[N,2] y)", GATHER, 8),
        ("(bool[N,3] x) => (bool[N,3] y)", "y = Not (x)", 8),
        ("(uint8[1,3] x) => (float[1,3] y)", "y = Cast <to = 1> (x)", 8),
        ("(float16[N,3] x) => (float16[N,3] y)", "y = Relu (x)", 8),
        ("(double[N,3] x) => (double[N,3] y)", "y = Relu (x)", 8),
        ("(float[2,3] x) => (float[2,3] y)", "y = Relu (x)", 8),
        ("(float x) => (float y)", "y = Relu (x)", 8),
        ("(float[A,B,C,D] x) => (float[A,E,C,D] y)", CONV_1X1, 8),
        ("(float[H,W] x) => (float[64,64] y)", RESHAPE, 8),
        ("(float[N,3] x, float[M,3] z) => (float[N,3] y)", "y = Add (x, z)", 8),
        ("(string[N] x) => (string[N] y)", "y = Identity (x)", 8),
        ("() => (float[1] y)", "y = Constant <value = float[1] {1}> ()", 8),
        (
            "(float[N,3] x) => (float[1,3] y)",
            "s = Constant <value = int64[2] {1,3}> () y = Reshape (x, s)",
            6,
        ),
    ],
)
def test_inputs_are_made_up_for_every_kind_of_signature(signature: str, body: str, inputs: int) -> None:
    result = compare(parsed(signature, body), parsed(signature, body))
    assert result.equal
    assert result.runtimes[0].inputs == inputs


def test_several_batch_and_free_sizes_are_tried() -> None:
    """Only for three samples, of another size than the first, is `n` zero."""
    signature = "(float[N,L] x) => (float[N,L] y)"
    body = """
        s = Shape (x) f = Cast <to = 1> (s) c = Constant <value = float[2] {3,96}> ()
        d = Sub (f, c) a = Abs (d)
        m = ReduceSum <keepdims = 0> (a) k = Constant <value_float = 1.0> () n = Min (m, k) y = Mul (x, n)
    """
    assert not compare(parsed(signature, "y = Identity (x)"), parsed(signature, body)).equal


def test_the_same_seed_gives_the_same_answer() -> None:
    one, two, other = (compare(conv_model(), conv_model(1e-5), seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one.largest_difference != other.largest_difference


def test_a_sequence_and_an_optional_tensor_are_fed() -> None:
    signature = "(seq(float[N]) x) => (float[M] y)"
    body = "z = ConcatFromSequence <axis = 0> (x) y = Identity (z)"
    assert compare(parsed(signature, body), parsed(signature, body)).runtimes[0].inputs == 8
    assert not compare(parsed(signature, body), parsed(signature, body.replace("Identity", "Abs"))).equal
    optional = "(optional(float[2]) x) => (float[2] y)"
    get = "y = OptionalGetElement (x)"
    assert compare(parsed(optional, get), parsed(optional, get)).runtimes[0].inputs == 8


def test_an_input_that_is_a_map_is_refused() -> None:
    model = parsed("(float[N] x) => (float[N] y)", "y = Identity (x)")
    model.graph.input[0].type.map_type.key_type = onnx.TensorProto.INT64
    with pytest.raises(VerificationError, match=r"cannot run it|input 'x' is no tensor"):
        compare(model, onnx.ModelProto.FromString(model.SerializeToString()))


@pytest.mark.parametrize("kind", ["bfloat16", "float8e4m3fn", "float8e5m2", "int4", "uint4"])
def test_types_that_numpy_lacks_are_fed_and_read(kind: str) -> None:
    number = onnx.TensorProto.DataType.Value(kind.upper())
    models = []
    for factor in (1.0, 1.0, 0.5):
        scaled = f"z = Cast <to = 1> (x) k = Constant <value_float = {factor}> () h = Mul (z, k)"
        text = f"{scaled} y = Cast <to = {number}> (h)"
        model = parsed(f"(float[N,40] x) => ({kind}[N,40] y)", text)
        model.graph.input[0].type.tensor_type.elem_type = number
        model.opset_import[0].version, model.ir_version = 21, 10
        models.append(model)
    same, other = compare(models[0], models[1]), compare(models[0], models[2])
    assert (same.equal, same.largest_difference, same.runtimes[0].inputs) == (True, 0, 8)
    assert not other.equal


def test_an_input_without_a_shape_is_tried_at_several_ranks() -> None:
    models = [conv_model(), conv_model()]
    for model in models:
        model.graph.input[0].type.tensor_type.ClearField("shape")
    assert compare(*models).runtimes[0].inputs == 8


def test_free_sizes_are_tried_up_to_a_limit_of_memory() -> None:
    # Runs on 256 x 256 only: others have to be tried and fail, none of them with a huge input.
    model = parsed(
        "(float[N, 3, H, W] x) => (float[N, 3, 256, 256] y)",
        "shape = Constant <value_ints = [-1, 3, 256, 256]> ()  y = Reshape (x, shape)",
    )
    assert compare(model, model).equal
    sizes = [domain.sizes["H"] for domain in probes._domains(model.graph) if not domain.batch]
    assert 160 in sizes
    assert max(3 * size**3 for size in sizes) <= probes.MOST_ELEMENTS


def test_a_sequence_may_have_more_elements_for_another_batch() -> None:
    model = parsed("(float[N,2] x) => (seq(float[1,2]) rows)", "rows = SplitToSequence(x)")
    result = compare(model, onnx.ModelProto.FromString(model.SerializeToString()))
    assert (result.equal, result.largest_difference, result.weak) == (True, 0.0, False)
    other = parsed("(float[N,2] x) => (seq(float[1,2]) rows)", "y = Mul(x, x) rows = SplitToSequence(y)")
    assert "output 'rows' differs" in compare(model, other).reason
