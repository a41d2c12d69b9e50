"""Verification finds every kind of difference, allows rounding, and refuses what it cannot judge."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner.verification.compare import Verification, VerificationError, compare
from tests.onnx_pruner.verification.models import CONV, conv_model, parsed


def test_the_very_same_model_is_run_but_once() -> None:
    model = conv_model()
    result = compare(model, model)
    assert (result.equal, result.largest_difference, result.weak, result.runtimes[0].inputs) == (True, 0, False, 1)


def test_rounding_is_allowed_and_just_above_it_is_not() -> None:
    assert compare(conv_model(), conv_model(1e-4)).equal
    assert not compare(conv_model(), conv_model(1e-2)).equal


def test_a_difference_shown_by_one_input_only_is_found() -> None:
    signature = "(float[N,3] x) => (float[N,3] y)"
    clipped = parsed(signature, "l = Constant <value_float = 50.0> () y = Min (x, l)")
    assert not compare(parsed(signature, "y = Identity (x)"), clipped).equal


def test_a_new_infinity_is_refused_whatever_the_tolerance() -> None:
    signature = "(float[N,3] x) => (float[N,3] y)"
    after = parsed(signature, "z = Sub (x, x) o = Div (x, z) y = Mul (o, x)")
    result = compare(parsed(signature, "y = Identity (x)"), after)
    assert (result.equal, result.largest_difference) == (False, float("inf"))
    assert "where it is finite" in result.reason
    assert json.loads(json.dumps(result.to_dict()))["largest_difference"] is None


def test_what_the_runtimes_own_optimisation_changes_is_allowed_tenfold() -> None:
    """Conv and BatchNorm cancel to one part in a million: fusing them alone moves the output."""
    text = CONV.replace("y = Relu (convolved)", "y = BatchNormalization <epsilon = 0.0> (convolved, s, t, m, v)")

    def cancelling(change: float) -> onnx.ModelProto:
        model = conv_model(change, text)
        for tensor in model.graph.initializer:
            if tensor.name == "b":
                tensor.CopyFrom(numpy_helper.from_array(np.full(4, 1e5, np.float32), "b"))
        values = {"s": np.full(4, 1.1), "t": np.full(4, 0.3), "m": np.full(4, 1e5), "v": np.full(4, 0.7)}
        model.graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()
        )
        return model

    result = compare(cancelling(0), cancelling(1e-5))
    assert result.equal
    assert result.tolerance > 1e-3
    assert not compare(cancelling(0), cancelling(0.5)).equal


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (
            "(float[N,4] x) => (float[N,4] y)",
            "input 'x' is float[N, 3] in one model and float[N, 4] in the other",
        ),
        ("(float[N,3] z) => (float[N,3] y)", "inputs are 'x' in one model and 'z' in the other"),
        ("(float[N,3] x) => (float[M,3] y)", "output 'y' is float[N, 3] in one model and float[M, 3]"),
        ("(double[N,3] x) => (double[N,3] y)", "float[N, 3] in one model and double[N, 3]"),
    ],
)
def test_a_changed_signature_is_named(after: str, words: str) -> None:
    before = parsed("(float[N,3] x) => (float[N,3] y)", "y = Relu (x)")
    source = after.split("] ")[1].split(")")[0]
    result = compare(before, parsed(after, f"y = Relu ({source})"))
    assert not result.equal
    assert words in result.reason


def test_weights_listed_as_inputs_are_no_inputs() -> None:
    listed = conv_model()
    listed.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 2, 3, 3]))
    assert compare(listed, conv_model()).equal


def test_an_output_that_ignores_the_input_is_weak() -> None:
    body = "z = Sub (x, x) o = Constant <value_float = 1.0> () y = Add (z, o)"
    signature = "(float[N,3] x) => (float[N,3] y)"
    result = compare(parsed(signature, body), parsed(signature, body))
    assert (result.equal, result.weak) == (True, True)
    assert result.notes == ("the outputs hardly depend on the input, so equality proves little",)


def test_large_weights_in_memory_and_weights_outside_the_file_are_read(tmp_path: Path) -> None:
    model = parsed("(float[N,512] x) => (float[N,1024] y)", "y = MatMul (x, w)")
    weight = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(path)
    assert compare(model, path).equal
    assert model.graph.initializer[0].raw_data == weight.tobytes()
    (tmp_path / "w.bin").unlink()
    with pytest.raises(VerificationError, match=r"outside\.onnx: onnxruntime cannot run it: .*w\.bin"):
        compare(path, model)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"no model at all"), "not an ONNX model, or a truncated one"),
        (lambda path: path.write_bytes(b""), "not an ONNX model"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "no such file"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "bad.onnx"
    make(path)
    with pytest.raises(VerificationError, match=r"bad\.onnx") as caught:
        compare(conv_model(), path)
    assert words in str(caught.value)


def test_the_command_says_equal_or_names_both_files(tmp_path: Path) -> None:
    for name, change in (("a", 0.0), ("b", 0.0), ("c", 0.5)):
        onnx.save(conv_model(change), tmp_path / f"{name}.onnx")
    a, b, c = (str(tmp_path / f"{name}.onnx") for name in "abc")
    run = CliRunner().invoke
    same = run(app, ["verify", a, b])
    assert (same.exit_code, "equal on 8 inputs" in same.stdout) == (0, True)
    told = json.loads(run(app, ["verify", a, b, "--json", "--runtime", "reference"]).stdout)
    assert (told["equal"], told["runtimes"][0]["runtime"]) == (True, "reference")
    other = run(app, ["verify", a, c])
    assert isinstance(other.exception, OnnxShiftError)
    assert f"{a} and {c} are not equal: output 'y' differs by" in str(other.exception)


def test_the_result_is_plain_data() -> None:
    assert Verification(True, 0.0, 1e-4, False).to_dict() == {
        "equal": True,
        "largest_difference": 0.0,
        "tolerance": 1e-4,
        "weak": False,
        "reason": "",
        "notes": [],
        "runtimes": [],
    }
