"""The runtimes that verification may use, and what they refuse."""

import onnx
import pytest

from onnx_shift.onnx_pruner.engines.engine import ENGINES
from onnx_shift.onnx_pruner.verification.compare import VerificationError, compare
from onnx_shift.onnx_pruner.verification.engines import RUNTIMES
from tests.onnx_pruner.engines.models import skip_unless_installed
from tests.onnx_pruner.verification.models import CONV, conv_model, parsed


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param in ENGINES:
        skip_unless_installed(request.param)
    return str(request.param)


def test_a_model_equals_itself_in_every_runtime(runtime: str) -> None:
    result = compare(conv_model(), conv_model(), runtimes=[runtime])
    assert (result.equal, result.largest_difference, result.tolerance, result.weak) == (
        True,
        0.0,
        1e-4,
        False,
    )
    few = runtime in ("reference", "ncnn", "litert")  # which evaluate slowly, or convert anew for each shape
    assert 3 <= result.runtimes[0].inputs <= 8 if few else result.runtimes[0].inputs == 8


def test_a_changed_weight_is_found_in_every_runtime(runtime: str) -> None:
    result = compare(conv_model(), conv_model(0.5), runtimes=[runtime])
    assert not result.equal
    assert 0.01 < result.largest_difference < 1
    assert result.reason.startswith("output 'y' differs by")
    assert runtime in result.reason


def test_a_model_that_the_runtime_cannot_run_is_refused_with_its_reason() -> None:
    unknown = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>'
        "net (float[1] x) => (float[1] y) { y = nobody.Unheard (x) }"
    )
    with pytest.raises(VerificationError, match=r"the original model: onnxruntime cannot run it: .*Unheard"):
        compare(unknown, unknown)
    body = "s = Constant <value = int64[1] {5}> () y = Reshape (x, s)"
    never, twin = (parsed("(float[N,2] x) => (float[5] y)", body) for _ in range(2))
    with pytest.raises(VerificationError, match=r"onnxruntime runs it on none of the inputs tried: .*Reshape"):
        compare(never, twin)
    assert compare(never, never).notes[0].startswith("nothing was changed; ")


def test_a_second_model_that_cannot_run_is_unequal() -> None:
    text = CONV.replace("float[N,2,H,W] x", "float[N,2,8,8] x")
    broken = conv_model(text=text.replace("kernel_shape = [3, 3]", "kernel_shape = [3, 3], group = 2"))
    assert "the second model cannot be run" in compare(conv_model(text=text), broken).reason


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(VerificationError, match="runtime 'abacus' is unknown; known: onnxruntime, reference"):
        compare(conv_model(), conv_model(), runtimes=["abacus"])
