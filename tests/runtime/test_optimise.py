"""Which weights are packed again at every start."""

import platform
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import optimise
from onnx_shift.runtime.skeleton import ExternalTensor, Node
from tests.networks import network
from tests.runtime.conftest import Make


@pytest.mark.parametrize(
    "readers, packs",
    [
        ([("com.microsoft.nchwc", "Conv")], True),  # nothing beside the convolutions
        ([("com.microsoft.nchwc", "Conv"), ("", "Gemm")], False),
        ([("com.microsoft.nchwc", "Conv"), ("", "Gemm"), ("", "Gemm")], True),  # read twice
        ([("com.microsoft.nchwc", "Conv"), ("", "LSTM")], True),
        ([("com.microsoft.nchwc", "Conv")] * 2, True),
        ([("", "Conv"), ("", "Gemm")], True),  # nothing lies in blocks
    ],
)
def test_only_a_classifier_beside_blocked_convolutions_is_left_unpacked(
    readers: list[tuple[str, str]], packs: bool
) -> None:
    nodes = [Node(operator, ("x", "blocked" if operator[1] == "Conv" else "rest")) for operator in readers]
    tensors = [ExternalTensor("blocked", 1, (3_000_000,), 0), ExternalTensor("rest", 1, (300_000,), 0)]
    if ("", "Gemm") not in readers and ("", "LSTM") not in readers:
        tensors = tensors[:1]
    assert optimise._copies_a_classifier(nodes, tensors) is not packs
    if not packs:  # not worth it, or too much to pack at every run
        for size in (200_000, 400_000):
            assert not optimise._copies_a_classifier(nodes, [tensors[0], ExternalTensor("rest", 1, (size,), 0)])


def in_a_branch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model where `on` is true, and zeros where it is not."""
    graph = model.graph
    (output,) = graph.output
    zero = helper.make_node("Constant", [], ["none"], value=numpy_helper.from_array(np.zeros((1, 300), np.float32)))
    branches = {
        "then_branch": helper.make_graph(graph.node, "then", [], [output], graph.initializer),
        "else_branch": helper.make_graph([zero], "else", [], [helper.make_tensor_value_info("none", 1, [1, 300])]),
    }
    inputs = [*graph.input, helper.make_tensor_value_info("on", TensorProto.BOOL, [])]
    chosen = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    whole = helper.make_graph([helper.make_node("If", ["on"], ["chosen"], **branches)], "g", inputs, [chosen])
    return helper.make_model(whole, opset_imports=model.opset_import, ir_version=model.ir_version)


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="blocked convolutions are x86's")
def test_what_is_not_packed_stays_so_in_the_cache(
    make_switcher: Make, tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, branch: bool
) -> None:
    monkeypatch.setattr(optimise, "_WORTH_BYTES", 1000)
    onnx.save(in_a_branch(network(64)) if branch else network(64), tmp_path / "model.onnx")
    feed = {"input": images, **({"on": np.array(True)} if branch else {})}
    pack([tmp_path / "model.onnx"], tmp_path / "one.zip")
    plain = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for _ in ("optimised here", "taken from the cache"):
        model = make_switcher(tmp_path / "one.zip")
        content, optimised = model._leases.choice.builder._content(model.active, 1)
        assert optimised and not content.prepack
        np.testing.assert_allclose(model.run(None, feed)[0], plain.run(None, feed)[0], rtol=1e-5, atol=1e-5)


def test_the_log_says_once_that_the_kernels_are_missing(
    make_switcher: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    optimise._warn_once.cache_clear()
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "none")
    model = make_switcher()
    model.switch("smaller")
    assert (
        caplog.messages.count("layers with scattered zeros run as dense ones (switched off by ONNX_SHIFT_KERNELS)") == 1
    )
