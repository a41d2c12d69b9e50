"""Where each tensor of an optimised graph lies."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import numpy_helper

from onnx_shift.portfolio.pack import pack
from tests.runtime.conftest import Make


def test_large_weights_inside_branches_are_served(make_switcher: Make, tmp_path: Path) -> None:
    """onnxruntime moves them out of its optimised graph like all others; they must not be read from nowhere."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17]>
        g (float[300] x, bool c) => (float[300] y) {
            q = If (c) <then_branch = t () => (float[300] s) {
                k = Constant <value = float[1] {0}> ()
                s = Add (x, k)
            }, else_branch = e () => (float[300] d) { d = Identity (x) }>
            y = MatMul (q, m)
        }"""
    )
    random = np.random.default_rng(0)
    model.graph.initializer.append(numpy_helper.from_array(random.random((300, 300), np.float32), "m"))
    inner = model.graph.node[0].attribute[0].g.node[0].attribute[0].t
    inner.CopyFrom(numpy_helper.from_array(random.random(300, np.float32)))
    onnx.save(model, tmp_path / "branch.onnx")
    pack([tmp_path / "branch.onnx"], tmp_path / "branch.zip")
    feed = {"x": np.ones(300, np.float32), "c": np.array(True)}
    plain = ort.InferenceSession(tmp_path / "branch.onnx", providers=["CPUExecutionProvider"])
    for _ in range(2):
        found = make_switcher(tmp_path / "branch.zip").run(None, feed)[0]
        np.testing.assert_allclose(found, plain.run(None, feed)[0], rtol=1e-5)
