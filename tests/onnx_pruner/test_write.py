"""The new model: its metadata, its inputs, and no node that nothing reads."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import ADDS_NOTHING, ITS_WEIGHTS, Exact, bias, build, weight
from tests.onnx_pruner.models import model


def test_metadata_survive_and_provenance_is_added(tmp_path: Path) -> None:
    path = tmp_path / "sparse.onnx"
    onnx.save(model(), path)
    result = prune(path, align=1)
    found = {entry.key: entry.value for entry in result.model.metadata_props}
    assert found["author"] == "somebody"
    assert len(found["onnx_shift.source_sha256"]) == 64
    assert json.loads(found["onnx_shift.removed"])["channels"] == 1
    again = prune(result.model, align=1)
    assert again.report.unchanged


def test_a_dead_node_goes_although_it_leaves_out_an_output() -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,4] y) {{{ADDS_NOTHING}
        c = Clip(r, low, high)
        p = ReduceMean<axes=[1,2], keepdims=0>(c)
        y = MatMul(p, w2)
    }}"""
    model = build(text, {**ITS_WEIGHTS, "low": np.float32(-1), "high": np.float32(1)}, 17)
    model.graph.node[2].output.append("")  # as optional outputs are left out, and optional inputs
    model.graph.node[5].input[1] = ""
    pruned = prune(model, align=1).model
    assert [node.op_type for node in pruned.graph.node] == [
        "Conv", "Transpose", "Identity", "Clip", "ReduceMean", "MatMul"
    ]  # fmt: skip


def test_weights_listed_as_inputs_leave_the_list(exact: Exact) -> None:
    text = """g (float[N,3,6,6] x, float[8,3,1,1] w1, float[4,8,1,1] w2, float[4] b2) => (float[N,4,6,6] y) {
        a = Conv(x, w1)
        r = Relu(a)
        y = Conv(r, w2, b2)
    }"""
    weights = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1), "b2": bias(4)}
    pruned = exact(text, weights, opset=8, ir_version=3)
    assert pruned.weight("a")[0] == 6
    assert [i.name for i in pruned.model.graph.input] == ["x", "b2"]
    assert "no longer inputs: w1, w2" in pruned.report.notes[0]
