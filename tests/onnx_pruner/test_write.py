"""The new model: its metadata, its inputs, no node that nothing reads; and where it is written."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.write import write_model
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


def test_command_writes_beside_the_input(tmp_path: Path) -> None:
    path, report = tmp_path / "sparse.onnx", tmp_path / "report.json"
    onnx.save(model(), path)
    result = CliRunner().invoke(app, ["prune", str(path), "--align", "1", "--explain", "--report", str(report)])
    assert result.exit_code == 0, result.output
    assert onnx.load(tmp_path / "sparse.pruned.onnx").graph.initializer[0].dims[0] == 7
    values = json.loads(report.read_text())
    assert (values["parameters_before"], values["parameters_after"]) == (8 * 27 + 32, 7 * 27 + 28)
    assert values["parameters_after_align_1"] == values["parameters_after"]
    assert values["verified"] is True


def test_nothing_to_do_is_a_copy_byte_for_byte(tmp_path: Path) -> None:
    path, copy = tmp_path / "dense.onnx", tmp_path / "copy.onnx"
    onnx.save(model(dead=()), path)
    result = CliRunner().invoke(app, ["prune", str(path), "-o", str(copy)])
    assert result.exit_code == 0, result.output
    assert copy.read_bytes() == path.read_bytes()
    assert "byte-identical copy" in result.output


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "sparse.onnx"
    onnx.save(model(), path)
    before = path.read_bytes()
    result = prune(path)
    with pytest.raises(OnnxShiftError, match="reads or writes this file already"):
        result.save(path)
    with pytest.raises(OnnxShiftError, match="there is no folder"):
        result.save(tmp_path / "nowhere" / "out.onnx")
    assert path.read_bytes() == before


def test_a_model_beyond_two_gigabytes_goes_to_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_shift.onnx_pruner.write.LARGEST_MESSAGE", 1 << 20)
    monkeypatch.setattr("onnx_shift.onnx_pruner.write.SMALLEST_EXTERNAL", 0)
    result = prune(model(), align=1, verify=False)
    result.save(tmp_path / "large.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert prune(tmp_path / "large.onnx").report.external_data
    assert result.model.graph.initializer[0].raw_data


def test_a_model_is_serialised_weight_by_weight(tmp_path: Path) -> None:
    whole = model()
    whole.graph.initializer.append(onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [300], [0.5] * 300))
    whole.graph.initializer[0].doc_string = "a weight"
    write_model(whole, tmp_path / "net.onnx", whole.ByteSize())
    read = onnx.load(tmp_path / "net.onnx")
    assert read.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    assert (tmp_path / "net.onnx").stat().st_size == whole.ByteSize()
