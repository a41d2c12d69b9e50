"""The portfolio file from models and a profile."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio import pack as packing
from onnx_shift.portfolio.pack import PackError, pack
from onnx_shift.portfolio.profile import Latency, Profile, Timing, Variant
from onnx_shift.portfolio.select import Selection
from onnx_shift.runtime import ModelSwitcher, Portfolio
from onnx_shift.runtime.archive import sha256

TIMING = Timing({1: Latency(1.0)})
SHARED_MODELS = Path(__file__).parents[2].parent / "shared" / "models"


RANDOM = np.random.default_rng(3)


CPU = ["CPUExecutionProvider"]


def linear(width: int = 40, *, ir_version: int = 8, opset: int = 17, **metadata: str) -> onnx.ModelProto:
    """Return logits = relu(input @ a) @ b, `a` an initializer and `b` a Constant node."""
    a = numpy_helper.from_array(RANDOM.standard_normal((32, width)).astype(np.float32), "a")
    b = numpy_helper.from_array(RANDOM.standard_normal((width, 10)).astype(np.float32), "value")
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 32])]
    if ir_version < 4:
        inputs.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [32, width]))
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["b"], value=b),
            helper.make_node("MatMul", ["input", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["logits"]),
        ],
        "linear",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [a],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    helper.set_model_props(model, metadata)
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def plain_answer(model: Path | bytes, feed: dict[str, np.ndarray]) -> np.ndarray:
    return ort.InferenceSession(model, providers=CPU).run(None, feed)[0]


def unpacked_and_switched_answers(portfolio: Path, name: str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the variant's answers in plain onnxruntime after unzip, and through a switcher, cache or none."""
    folder = portfolio.parent / f"{portfolio.stem}-unpacked"
    with zipfile.ZipFile(portfolio) as plain:
        plain.extractall(folder)
    onnx.checker.check_model(str(folder / name / "model.onnx"))
    answers = [plain_answer(folder / name / "model.onnx", feed)]
    for cache in (False, portfolio.parent / "cache"):
        with ModelSwitcher(portfolio, None, CPU, start=name, cache=cache) as model:
            answers.append(model.run(None, feed)[0])
    return answers


def test_the_same_models_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    paths = [save(linear(width), tmp_path / f"w{width}.onnx") for width in (40, 80, 60)]
    pack(paths, tmp_path / "one.zip")
    pack(paths[::-1], tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert [variant.name for variant in Portfolio.open(tmp_path / "one.zip")] == ["w40", "w60", "w80"]


def test_equal_sizes_are_sorted_by_name(tmp_path: Path) -> None:
    paths = [save(linear(), tmp_path / f"{name}.onnx") for name in ("c", "a", "b")]
    pack(paths, tmp_path / "p.zip")
    assert [variant.name for variant in Portfolio.open(tmp_path / "p.zip")] == ["a", "b", "c"]


def test_variants_of_one_shape_are_sorted_by_their_nonzero_weights(tmp_path: Path) -> None:
    paths = []
    for percent in (80, 90, 95, 98):
        model = linear()
        weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
        weights.reshape(-1)[: weights.size * percent // 100] = 0
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "a"))
        paths.append(save(model, tmp_path / f"z{percent}.onnx"))
    pack(paths, tmp_path / "p.zip")
    portfolio = Portfolio.open(tmp_path / "p.zip")
    assert [variant.name for variant in portfolio] == ["z98", "z95", "z90", "z80"]
    assert {variant.weight_bytes for variant in portfolio} == {4 * (32 * 40 + 40 * 10)}
    assert [variant.nonzero_bytes for variant in portfolio] == [4 * (n + 400) for n in (26, 64, 128, 256)]
    with ModelSwitcher(portfolio, providers=CPU, start="z90", cache=False) as model:
        assert model.switch("smaller") and model.active.name == "z95"


@pytest.mark.parametrize("ir_version, opset", [(3, 8), (8, 17), (10, 21)])
def test_large_constants_lie_outside_and_small_tensors_inside(tmp_path: Path, ir_version: int, opset: int) -> None:
    model = linear(ir_version=ir_version, opset=opset)
    path = save(model, tmp_path / "m.onnx")
    pack([path], tmp_path / "p.zip")
    feed = {"input": RANDOM.standard_normal((2, 32)).astype(np.float32)}
    for answer in unpacked_and_switched_answers(tmp_path / "p.zip", "m", feed):
        np.testing.assert_allclose(answer, plain_answer(path, feed), rtol=1e-5)
    portfolio = Portfolio.open(tmp_path / "p.zip")
    outside = {tensor.name for tensor in portfolio.content("m").tensors}
    assert outside == {"a", "b"}
    assert [signature.name for signature in portfolio.inputs] == ["input"]
    assert portfolio["m"].weight_bytes == 4 * (32 * 40 + 40 * 10)


def test_external_data_is_taken_in(tmp_path: Path) -> None:
    model = linear()
    feed = {"input": RANDOM.standard_normal((2, 32)).astype(np.float32)}
    wanted = plain_answer(model.SerializeToString(), feed)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="side.data", size_threshold=0)
    pack([path], tmp_path / "p.zip")
    (tmp_path / "side.data").unlink()
    for answer in unpacked_and_switched_answers(tmp_path / "p.zip", "m", feed):
        np.testing.assert_allclose(answer, wanted, rtol=1e-5)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(linear(), path, save_as_external_data=True, location="side.data", size_threshold=0)
    (tmp_path / "side.data").unlink()
    with pytest.raises(PackError, match=r"m\.onnx: .*side\.data"):
        pack([path], tmp_path / "p.zip")


@pytest.mark.parametrize("type_", [np.float16, np.float64, np.int8, np.int64, np.uint8, np.bool_])
def test_tensors_of_every_type_come_back(tmp_path: Path, type_: type) -> None:
    values = RANDOM.integers(0, 2, (8, 400)).astype(type_)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["input", "c"], ["logits"]),
        ],
        "typed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [400])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [8, 400])],
        [numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = save(model, tmp_path / "m.onnx")
    pack([path], tmp_path / "p.zip")
    assert Portfolio.open(tmp_path / "p.zip").content("m").tensors[0].type == np.dtype(type_).name
    feed = {"input": np.ones(400, np.float32)}
    for answer in unpacked_and_switched_answers(tmp_path / "p.zip", "m", feed):
        np.testing.assert_array_equal(answer, values.astype(np.float32))


@pytest.mark.parametrize(
    "name", ["onnx-onnx__light_resnet50", "akamaster__cifar10_resnet20", "ms-ort-inference-examples__mnist"]
)
def test_models_that_others_made(tmp_path: Path, name: str) -> None:
    path = SHARED_MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    pack([path], tmp_path / "p.zip")
    (signature,) = Portfolio.open(tmp_path / "p.zip").inputs
    shape = [size if isinstance(size, int) else 1 for size in signature.shape]
    feed = {signature.name: RANDOM.standard_normal(shape).astype(np.float32)}
    wanted = plain_answer(path, feed)
    for answer in unpacked_and_switched_answers(tmp_path / "p.zip", name, feed):
        np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_metadata_come_from_model_and_profile(tmp_path: Path) -> None:
    own = {
        "onnx_shift.accuracy": "0.75",
        "onnx_shift.class_names": '["a", "b"]',
        "onnx_shift.method": "imp",
        "author": "1",
    }
    path = save(linear(**{**own, "onnx_shift.odd": "NaN"}), tmp_path / "m.onnx")
    pack([path], tmp_path / "p.zip")
    stated = dict(Portfolio.open(tmp_path / "p.zip")["m"].metadata)
    assert stated == {
        "accuracy": 0.75,
        "accuracy_claimed": True,
        "class_names": ["a", "b"],
        "method": "imp",
        "author": "1",
        "odd": "NaN",
    }


def test_a_profile_selects_and_describes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(linear(width), tmp_path / f"w{width}.onnx") for width in (40, 60, 80)]
    profile = Profile({f"w{width}": Variant(TIMING, 1, accuracy=width / 100) for width in (40, 60, 80)})
    asked: list[Any] = []

    def select(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return Selection(("w40", "w80"), {"w60": "slower than w80"}, ("w40",), ("size",))

    monkeypatch.setattr(packing, "select", select)
    found = pack(paths, tmp_path / "p.zip", profile=profile, max_variants=2, metrics=("size",))
    assert found.dropped == {"w60": "slower than w80"} and found.efficiency == pytest.approx(1 / 3)
    assert asked == [
        (
            (profile, ["w40", "w60", "w80"]),
            {"max_variants": 2, "keep_all": False, "metrics": ("size",)},
        )
    ]
    portfolio = Portfolio.open(tmp_path / "p.zip")
    assert [(variant.name, variant.metadata["accuracy"]) for variant in portfolio] == [
        ("w40", 0.4),
        ("w80", 0.8),
    ]


def test_a_profile_of_another_model_of_the_name_is_refused(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")
    entry = Variant(TIMING, 1, deflated_bytes=1, accuracy=0.5, model_sha256=sha256(path.read_bytes()))
    profile = Profile({"m": entry})
    pack([path], tmp_path / "p.zip", profile=profile, keep_all=True)
    save(linear(), path)  # other weights
    with pytest.raises(PackError, match=r"m\.onnx: the profile was made of another model of this name; profile again"):
        pack([path], tmp_path / "q.zip", profile=profile, keep_all=True)


def other_output() -> onnx.ModelProto:
    model = linear()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11
    return model


@pytest.mark.parametrize(
    "models, options, message",
    [
        ([], {}, "a portfolio needs at least one model"),
        (["a/m", "b/m"], {}, r"b/m\.onnx: a second model of the name 'm'"),
        (["smaller"], {}, "cannot be called 'smaller'"),
        (["m", "other"], {}, r"other\.onnx: its outputs differ from those of .*m\.onnx: .*11.*, not "),
        (["m"], {"profile": Profile({})}, "the profile does not list m"),
        (["m", "n"], {"max_variants": 1}, "2 models for at most 1 variants: without a profile all are kept"),
        (["absent"], {}, r"absent\.onnx: no such file"),
        (["garbage"], {}, r"garbage\.onnx: not an ONNX model"),
        (["empty"], {}, r"empty\.onnx: not an ONNX model"),
    ],
)
def test_what_makes_no_portfolio_is_refused_and_nothing_written(
    tmp_path: Path, models: list[str], options: dict[str, Any], message: str
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for name in ("a/m", "b/m", "m", "n", "smaller"):
        save(linear(), tmp_path / f"{name}.onnx")
    save(other_output(), tmp_path / "other.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"\xff" * 100)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(PackError, match=message):
        pack([tmp_path / f"{name}.onnx" for name in models], tmp_path / "p.zip", **options)
    assert not list(tmp_path.glob("*p.zip*"))


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match=r"absent/p\.zip: cannot be written"):
        pack([save(linear(), tmp_path / "m.onnx")], tmp_path / "absent" / "p.zip")


PACK_FOREVER = """
import sys
from onnx_shift.portfolio.pack import pack
print("ready", flush=True)
while True:
    pack(sys.argv[2:], sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_while_packing_leaves_a_whole_portfolio_or_none(tmp_path: Path) -> None:
    paths = [save(linear(width), tmp_path / f"w{width}.onnx") for width in (2000, 4000)]
    output = tmp_path / "out" / "p.zip"
    output.parent.mkdir()
    pack(paths, output)
    wanted = output.read_bytes()
    for _ in range(5):
        arguments = [sys.executable, "-c", PACK_FOREVER, str(output), *map(str, paths)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + RANDOM.random() * 0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert output.read_bytes() == wanted


def test_an_initializer_that_nobody_reads_is_no_obstacle(tmp_path: Path) -> None:
    model = linear(300)
    unread = numpy_helper.from_array(np.ones(1000, np.float32), "unread")
    model.graph.initializer.append(unread)
    pack([save(model, tmp_path / "a.onnx")], tmp_path / "p.zip")
    with ModelSwitcher(tmp_path / "p.zip", providers=["CPUExecutionProvider"], cache=False) as switcher:
        assert switcher.active.name == "a"


@pytest.mark.parametrize("stem", ["a:b", "a\\b", "a\nb"])
def test_a_name_that_no_archive_can_hold_leaves_the_old_portfolio(tmp_path: Path, stem: str) -> None:
    output = tmp_path / "p.zip"
    pack([save(linear(8), tmp_path / "a.onnx")], output)
    before = output.read_bytes()
    with pytest.raises(OnnxShiftError, match="no name for a file inside an archive"):
        pack([save(linear(8), tmp_path / f"{stem}.onnx")], output)
    assert output.read_bytes() == before


def test_a_signature_is_what_onnxruntime_states(tmp_path: Path) -> None:
    """An output that is an initializer is one; sequences say of what."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N] x) => (float[N] y, float[2] k, seq(float[N]) s) <float[2] k = {1, 2}> {
            y = Relu (x)
            s = SequenceConstruct (x, y)
        }"""
    )
    path = save(model, tmp_path / "m.onnx")
    pack([path], tmp_path / "p.zip")
    with ModelSwitcher(tmp_path / "p.zip", providers=["CPUExecutionProvider"], cache=False) as switcher:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for ours, theirs in zip(switcher.get_outputs(), session.get_outputs(), strict=True):
            assert (ours.name, ours.type) == (theirs.name, theirs.type)
