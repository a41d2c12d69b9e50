"""`onnx-shift train` and `export` as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import torch
from typer.testing import CliRunner, Result

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError

SMALL = ("--levels", "1", "--epochs", "1", "--width", "0.25", "--device", "cpu", "--no-tensorboard")


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _refusal(*arguments: object) -> str:
    result = _invoke(*arguments)
    assert isinstance(result.exception, OnnxShiftError), result.output
    return str(result.exception)


def test_train_prints_a_line_per_level_and_export_repeats_a_level(tmp_path: Path) -> None:
    result = _invoke("train", "digits", "-o", tmp_path / "run", *SMALL)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(str(tmp_path / "run/level-00.onnx"))
    assert "dense" in lines[0]
    assert "ratio 2" in lines[1]
    assert json.loads((tmp_path / "run/recipe.json").read_text())["exclude"] == ["fc.weight"]
    again = tmp_path / "again.onnx"
    result = _invoke("export", tmp_path / "run/checkpoints/round-01.pt", "-o", again)
    assert result.stdout.strip() == f"{again}: round 1 of a digits run"
    assert again.read_bytes() == (tmp_path / "run/level-01.onnx").read_bytes()
    result = _invoke("train", "-o", tmp_path / "run", "--levels", "2", "--device", "cpu", "--json")
    levels = json.loads(result.stdout)[0]["levels"]
    assert [level["level"] for level in levels] == [0, 1, 2]
    assert levels[2]["onnx"] == str(tmp_path / "run/level-02.onnx")


@pytest.mark.parametrize(("processor", "told"), [("AVX2", 1), ("AVX512", 0)])
def test_a_precision_that_the_processor_emulates_is_announced(
    processor: str, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    options = ("--levels", "0", "--train-images", "64", "--precision", "bfloat16")
    result = _invoke("train", "digits", "-o", tmp_path / "run", *SMALL, *options)
    assert result.exit_code == 0, result.output
    line = "--precision bfloat16: this processor only emulates it; float32 is far faster here\n"
    assert result.stderr.count(line) == told


def test_replicates_differ_by_their_seed(tmp_path: Path) -> None:
    options = (*SMALL, "--levels", "0", "--seed", "3", "--replicates", "2", "--json")
    result = _invoke("train", "digits", "-o", tmp_path, *options)
    assert [Path(run["folder"]).name for run in json.loads(result.stdout)] == ["seed-3", "seed-4"]
    seeds = {
        entry.value
        for seed in (3, 4)
        for entry in onnx.load(tmp_path / f"seed-{seed}/level-00.onnx").metadata_props
        if entry.key == "onnx_shift.seed"
    }
    assert seeds == {"3", "4"}


def test_any_module_on_any_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def small(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Flatten(), "
        "nn.LazyLinear(num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--model", "my_nets:small", "--data", "digits", "--levels", "1", "--epochs", "1"]
    options += ["--augmentation", "none", "--learning-rate", "0.01", "--set", "momentum=0.5"]
    result = _invoke("train", *options, "--device", "cpu", "--no-tensorboard")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs/custom/level-01.onnx").exists()
    recipe = json.loads((tmp_path / "runs/custom/recipe.json").read_text())
    assert (recipe["momentum"], recipe["initialisation"], recipe["learning_rate"]) == (0.5, "own", 0.01)
    again = tmp_path / "again.onnx"
    assert _invoke("export", "runs/custom/checkpoints/round-01.pt", "-o", again).exit_code == 0
    assert again.read_bytes() == (tmp_path / "runs/custom/level-01.onnx").read_bytes()


def test_refusals_are_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _refusal("train", "vgg99").startswith("vgg99: no such preset; choose one of")
    assert _refusal("train", "-o", run) == "name a PRESET, or both --model and --data"
    assert _refusal("train", "digits", "-o", run, "--method", "magic").startswith("--method magic: choose one of")
    assert _refusal("train", "digits", "-o", run, "--exclude", "nope").startswith("--exclude nope: matches none")
    assert "unknown; choose one of" in _refusal("train", "digits", "-o", tmp_path / "other", "--model", "vgg17")
    assert not run.exists()
    missing = tmp_path / "missing.pt"
    assert _refusal("export", missing, "-o", tmp_path / "x.onnx").startswith(f"{missing}: cannot be read")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_interrupting_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onnx_shift", "train", "digits", "-o", str(tmp_path), "--no-tensorboard"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored below `nohup`
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints/last.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        f"interrupted; the same command resumes from the last finished epoch in {tmp_path}"
    )
    assert torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)["round"] == 0


@pytest.mark.parametrize(("given", "taken"), [(None, "passive"), ("active", "active")])
def test_threads_wait_without_spinning_unless_told_otherwise(given: str | None, taken: str) -> None:
    code = """
import os, sys, types
command = types.ModuleType("onnx_shift.exporter.command")
command.train_command = lambda *_, **__: print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules) or []
sys.modules[command.__name__] = command
from onnx_shift.cli import main
main()
"""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "digits"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [taken, "False"]  # before torch, which reads it once
