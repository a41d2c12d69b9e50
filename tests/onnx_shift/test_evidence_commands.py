"""The commands profile, inspect and report, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest


def shift(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnx_shift", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def _network(path: Path, channels: int, **metadata: str) -> Path:
    """A network for the digits: a convolution of so many channels, every other one without weights."""
    body = "c = Conv<pads = [1,1,1,1]>(input, w)\n a = Relu(c)\n p = GlobalAveragePool(a)\n f = Flatten(p)"
    text = (
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,1,8,8] input) => (float[N,10] logits) '
        f"{{ {body}\n logits = Gemm<transB = 1>(f, v, b) }}"
    )
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(channels)
    for name, shape in (("w", (channels, 1, 3, 3)), ("v", (10, channels)), ("b", (10,))):
        values = generator.standard_normal(shape).astype(np.float32)
        if name == "w":
            values[::2] = 0
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for key, value in metadata.items():
        model.metadata_props.add(key=f"onnx_shift.{key}", value=value)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [_network(folder / "dense.onnx", 64, ratio="1"), _network(folder / "small.onnx", 16, ratio="4")]


def test_profile_on_real_images_writes_json_and_tables(models: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    options = ["--data", "digits", "--seconds", "0.05", "--batch", "1", "--batch", "4", "-o", output]
    done = shift("profile", *models, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert list(found["variants"]) == ["dense", "small"]
    assert found["dense"] == "dense"
    entry = found["variants"]["small"]
    assert entry["images"] == 359
    assert entry["classes"] == 10
    assert 0 <= entry["accuracy"] <= entry["top5"] <= 1
    assert entry["switch_ms"] > 0
    assert entry["memory_mb"] is None or entry["memory_mb"] < 50
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if "small" in line) <= 80
    assert sum("small" in line for line in lines) >= 3  # sizes, and a row for each batch size


def test_profile_as_json_alone_on_stdout(models: list[Path]) -> None:
    done = shift("profile", models[1], "--seconds", "0.01", "--json")
    assert json.loads(done.stdout)["variants"]["small"]["macs"] == 16 * 9 * 64 + 160


def test_inspect_tells_zeros_and_channels_of_a_model(models: list[Path]) -> None:
    done = shift("inspect", models[1], "--json")
    found = json.loads(done.stdout)
    assert found["parameters"] == 16 * 9 + 160 + 10
    assert [(layer["channels"], layer["zero_channels"]) for layer in found["layers"]] == [(16, 8), (10, 0)]
    assert found["layers"][0]["zeros"] == 0.5
    assert found["metadata"] == {"onnx_shift.ratio": "4"}
    text = shift("inspect", models[1]).stdout
    assert "16×1×3×3" in text
    assert "8 of 16" in text
    assert "input float[N, 1, 8, 8] -> logits float[N, 10]" in text


def test_report_of_a_folder(models: list[Path], tmp_path: Path) -> None:
    assert shift("profile", *models, "--seconds", "0.01", "-o", tmp_path / "profile.json").returncode == 0
    done = shift("report", tmp_path, "-o", tmp_path / "report.html")
    assert done.stdout == f"wrote {tmp_path / 'report.html'}\n"
    assert "What stayed, and why" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "none.onnx"], "none.onnx: no such file"),
        (["profile", "MODEL", "--provider", "Abacus"], "provider Abacus: not in this onnxruntime"),
        (["profile", "MODEL", "--data", "no/such/set"], "no/such/set"),
        (["profile", "MODEL", "--data", "digits", "--mean", "0.5"], "--mean and --std belong together"),
        (["profile", "MODEL", "--data", "digits", "--mean", "a", "--std", "1"], "--mean a: give numbers"),
        (["profile", "MODEL", "--shape", "input"], "--shape input: give an input's name and its axes"),
        (["profile", "MODEL", "--seconds", "0.01", "-o", "no/folder/p.json"], "no/folder/p.json"),
        (["inspect", "none.onnx"], "none.onnx"),
        (["report", "none.zip"], "none.zip"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    models: list[Path], arguments: list[str], message: str
) -> None:
    done = shift(*[str(models[1]) if argument == "MODEL" else argument for argument in arguments])
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
