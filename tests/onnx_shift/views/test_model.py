"""What `inspect` shows of a model."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from tests.onnx_shift.models import shift


def test_inspect_tells_zeros_and_channels_of_a_model(models: list[Path]) -> None:
    done = shift("inspect", models[1], "--json")
    found = json.loads(done.stdout)
    assert found["parameters"] == 16 * 9 + 160 + 10
    assert [(layer["channels"], layer["zero_channels"]) for layer in found["layers"]] == [(16, 8), (10, 0)]
    assert found["layers"][0]["zeros"] == 0.5
    assert found["metadata"] == {"onnx_shift.ratio": "4"}
    assert found["opset"] == 13
    text = shift("inspect", models[1]).stdout
    assert "16×1×3×3" in text
    assert "8 of 16" in text
    assert "input float[N, 1, 8, 8] -> logits float[N, 10]" in text


def test_inspect_shows_weights_that_are_stored_in_integers(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,2,8,8] x) => (float[N,4,6,6] y) '
        "<float s = {0.5}> { wide = DequantizeLinear(w, s) y = Conv(x, wide) }"
    )
    values = np.ones((4, 2, 3, 3), np.int8)
    values[1] = 0
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    onnx.save(model, tmp_path / "quantised.onnx")
    found = json.loads(shift("inspect", tmp_path / "quantised.onnx", "--json").stdout)
    (layer,) = found["layers"]
    assert (layer["parameters"], layer["zeros"], layer["zero_channels"]) == (72, 0.25, 1)
    assert found["parameters"] == 73


def test_inspect_shows_layers_in_bodies_of_other_domains_and_how_they_are_stored(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "acme" : 1]> g (float[N,4] x, bool b) => (float[N,4] y) {
            h = If (b) <then_branch = t () => (float[N,4] a) { a = MatMul(x, w) },
                        else_branch = e () => (float[N,4] c) { c = Identity(x) }>
            k = DequantizeLinear(q, s)
            y = acme.Mix(h, k)
        }"""
    )
    arrays = {"w": np.eye(4, dtype=np.float32), "q": np.ones((4, 4), np.int16), "s": np.float32(1)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(model, tmp_path / "foreign.onnx")
    layers = json.loads(shift("inspect", tmp_path / "foreign.onnx", "--json").stdout)["layers"]
    found = [(one["name"], one["operator"], one["body"], one["stored"], one["zeros"]) for one in layers]
    assert found == [("a", "MatMul", "If 'h'", "float", 0.75), ("y", "acme.Mix", "", "int16", 0.0)]
    assert "acme.Mix (int16)" in shift("inspect", tmp_path / "foreign.onnx").stdout
