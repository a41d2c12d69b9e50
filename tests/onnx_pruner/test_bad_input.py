"""Whatever is handed in: one line and no file, or a correct model. Files as users write them."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.save import save


def model(dead: tuple[int, ...] = (2,), ir_version: int = 10) -> onnx.ModelProto:
    """x → Conv → Relu → Conv → y, with zero filters in the first."""
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    w1[list(dead)] = 0
    found = onnx.parser.parse_model(
        f"""<ir_version: {ir_version}, opset_import: ["" : 17]>
        g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) }}"""
    )
    found.graph.initializer.append(onnx.numpy_helper.from_array(w1, "w1"))
    w2 = rng.standard_normal((4, 8, 1, 1)).astype(np.float32)
    found.graph.initializer.append(onnx.numpy_helper.from_array(w2, "w2"))
    found.metadata_props.add(key="author", value="somebody")
    return found


def refusal(source: Path | onnx.ModelProto) -> str:
    with pytest.raises(PruneError) as caught:
        prune(source)
    text = str(caught.value)
    assert "\n" not in text
    assert "defect" not in text
    return text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "graph is empty"),
        (b"PK\x03\x04 this is a zip file, is it not", "not an ONNX model"),
        (b"hello world, how are you", "not an ONNX model"),
        (model().SerializeToString()[:500], "not an ONNX model"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert says in refusal(path)
    assert str(path) in refusal(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.onnx")
    assert "is a folder" in refusal(tmp_path)


def test_dangling_input() -> None:
    broken = model()
    broken.graph.node[1].input[0] = "nowhere"
    assert "nowhere" in refusal(broken)


def test_cycle() -> None:
    broken = model()
    broken.graph.node[0].input[0] = "r"
    assert "fails the ONNX checker" in refusal(broken)


def test_unknown_domain() -> None:
    foreign = model()
    foreign.opset_import.add(domain="somebody.else", version=1)
    foreign.graph.node[1].domain = "somebody.else"
    assert "somebody.else" in refusal(foreign)
    pinned = prune(foreign, verify=False)
    assert pinned.report.unchanged
    assert pinned.report.kept[0].reason == "read by Relu 'r' (no rule for operator Relu)"


def test_unknown_operator_and_attribute() -> None:
    strange = model()
    strange.graph.node[1].op_type = "Relux"
    assert "Relux" in refusal(strange)


def test_old_opset() -> None:
    old = model()
    old.opset_import[0].version = 6
    assert "opset 6 is older than 7" in refusal(old)


def test_weight_of_another_size_than_its_shape() -> None:
    broken = model()
    broken.graph.initializer[0].raw_data = broken.graph.initializer[0].raw_data[:-4]
    assert "w1" in refusal(broken)


def test_weights_that_do_not_fit() -> None:
    broken = model()
    broken.graph.initializer[1].dims[:] = [8, 4, 1, 1]
    assert "Conv 'y' reads 8 channels, its weights are for 4" in refusal(broken)


def test_doubled_initializer() -> None:
    broken = model()
    broken.graph.initializer.append(broken.graph.initializer[0])
    assert "w1" in refusal(broken)


def test_nan_and_infinite_weights_are_kept() -> None:
    strange = model()
    w1 = onnx.numpy_helper.to_array(strange.graph.initializer[0]).copy()
    w1[3] = np.nan
    w1[4, 0, 0, 0] = np.inf
    strange.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(w1, "w1"))
    result = prune(strange, align=1, verify=False)
    assert result.report.layers[0].after == (7, 3, 3, 3)


def test_all_zero_model_is_one_channel() -> None:
    result = prune(model(dead=tuple(range(8))), align=1)
    assert result.report.layers[0].after == (1, 3, 3, 3)
    assert result.report.layers[1].after == (4, 1, 1, 1)
    assert any("depend" in note for note in result.report.notes)


def test_align_below_one() -> None:
    with pytest.raises(PruneError, match="--align 0: must be 1 or more"):
        prune(model(), align=0)


def external(tmp_path: Path, location: str) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    stored = onnx.load(path, load_external_data=False)
    for tensor in stored.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(stored.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    result = prune(external(tmp_path, "weights.bin"), align=1)
    assert result.report.external_data
    assert result.report.layers[0].after == (7, 3, 3, 3)
    save(result, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[0].raw_data


@pytest.mark.parametrize("location", ["missing.bin", "../weights.bin", "/etc/passwd"])
def test_external_data_that_is_missing_or_leaves_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    assert "external data" in refusal(external(tmp_path / "sub", location))


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


def test_a_network_of_a_thousand_layers_is_pruned() -> None:
    layers = "".join(f"r{index + 1} = Relu (r{index}) " for index in range(1200))
    deep = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> deep (float[1,3,8,8] x) => (float[1,4,8,8] y)'
        f"{{ r0 = Conv (x, w) {layers} i = Identity (r1200) y = Relu (i) }}"
    )
    deep.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w"))
    assert prune(deep, verify=False).report.parameters_after == 12


def test_a_constant_of_nothing_is_refused() -> None:
    nothing = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { k = Constant () y = Add (x, k) }'
    )
    with pytest.raises(PruneError, match="onnxruntime cannot run it"):
        prune(nothing)


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "sparse.onnx"
    onnx.save(model(), path)
    before = path.read_bytes()
    result = prune(path)
    with pytest.raises(OnnxShiftError, match="reads or writes this file already"):
        save(result, path, source=path)
    with pytest.raises(OnnxShiftError, match="there is no folder"):
        save(result, tmp_path / "nowhere" / "out.onnx", source=path)
    assert path.read_bytes() == before


def test_a_model_beyond_two_gigabytes_goes_to_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_shift.onnx_pruner.save.LARGEST_MESSAGE", 1 << 20)
    monkeypatch.setattr("onnx_shift.onnx_pruner.save.SMALLEST_EXTERNAL", 0)
    result = prune(model(), align=1, verify=False)
    save(result, tmp_path / "large.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert prune(tmp_path / "large.onnx").report.external_data
    assert result.model.graph.initializer[0].raw_data
