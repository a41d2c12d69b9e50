from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import ModelSwitcher

Make = Callable[..., ModelSwitcher]


def branch(tag: str, *inner: onnx.NodeProto, ends: str | None = None) -> onnx.GraphProto:
    """Return conv - relu - pool - matmul over the outer `x`; `ends` names another output, or a weight that is one."""
    random = np.random.default_rng(ord(tag))
    shapes = {f"w{tag}": (16, 8, 3, 3), f"m{tag}": (16, 300)}
    if ends == f"k{tag}":
        shapes = {ends: (2, 300)}
    weights = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = (
        []
        if ends == f"k{tag}"
        else [
            helper.make_node("Conv", ["x", f"w{tag}"], [f"c{tag}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{tag}"], [f"r{tag}"]),
            helper.make_node("ReduceMean", [f"r{tag}"], [f"p{tag}"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", [f"p{tag}", f"m{tag}"], [f"y{tag}"]),
            *inner,
        ]
    )
    output = helper.make_tensor_value_info(ends or f"y{tag}", TensorProto.FLOAT, ["N", 300])
    return helper.make_graph(nodes, tag, [], [output], weights)


def branching() -> onnx.ModelProto:
    """Return two Ifs, one inside the other; one branch gives a weight itself as its output."""
    inner = helper.make_node("If", ["d"], ["z"], then_branch=branch("c"), else_branch=branch("e", ends="ke"))
    outer = helper.make_node("If", ["b"], ["y"], then_branch=branch("a"), else_branch=branch("f", inner, ends="z"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 6, 6])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("b", "d")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 300])
    graph = helper.make_graph([outer], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_weights_in_branches_are_optimised_ahead_and_lie_outside_like_all_others(
    make_switcher: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx.save(branching(), tmp_path / "branch.onnx")
    pack([tmp_path / "branch.onnx"], tmp_path / "branch.zip")
    plain = ort.InferenceSession(tmp_path / "branch.onnx", providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 8, 6, 6)).astype(np.float32)
    for _ in ("optimised here", "taken from the cache"):
        model = make_switcher(tmp_path / "branch.zip")
        content, optimised = model._leases.choice.builder._content(model.active, 1)
        assert optimised and sum(tensor.size_bytes for tensor in content.tensors) >= 4 * 3 * 16 * (8 * 9 + 300) + 2400
        assert content.model.size_bytes < 10_000
        for b, d in ((True, True), (False, True), (False, False)):
            feed = {"x": x, "b": np.array(b), "d": np.array(d)}
            np.testing.assert_allclose(model.run(None, feed)[0], plain.run(None, feed)[0], rtol=1e-5, atol=1e-5)
    assert caplog.messages == [] and capfd.readouterr().err == ""
