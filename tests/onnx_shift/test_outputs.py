"""Every command that writes a file, on what is no plain file; and what the commands do with portfolios."""

import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from onnx_shift import console
from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profiling import Settings, profile
from onnx_shift.runtime import Portfolio
from onnx_shift.runtime.kernels import missing
from tests.runtime.conftest import network


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(console.out, "stderr", False)  # restored afterwards
    for name, width in (("small", 16), ("large", 32)):
        onnx.save(network(width), tmp_path / f"{name}.onnx")
    return [str(tmp_path / "small.onnx"), str(tmp_path / "large.onnx")]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def commands(models: list[str]) -> dict[str, list[str]]:
    """Return every command that writes one file, but for its -o, and how what it writes begins."""
    folder = Path(models[0]).parent
    measured = profile(models, settings=Settings(seconds=0.01, attempts=1, memory=False))
    pack(models, folder / "p.zip", profile=measured, keep_all=True)
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 5
    np.savez(folder / "images.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return {
        "prune": ["prune", models[0]],
        "compile": ["compile", models[0]],
        "quantize": ["quantize", models[0], "--data", str(folder / "images.npz"), "--max-drop", "1"],
        "export": ["export", str(folder / "weights.pt"), "--model", "vgg-digits", "--shape", "1,8,8"],
        "pack": ["pack", *models],
        "profile": ["profile", *models, "--seconds", "0.01"],
        "report": ["report", str(folder / "p.zip")],
    }


BEGINS = {
    **dict.fromkeys(("prune", "compile", "quantize", "export"), b"\x08"),
    "pack": b"PK",
    "profile": b"{",
    "report": b"<!",
}


@pytest.fixture(params=BEGINS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A command that writes; what it reads besides the models is there."""
    name: str = request.param
    if name == "export":
        torch = pytest.importorskip("torch", reason="the extra [train] is not installed")
        from onnx_shift.models.registry import build

        torch.save(build("vgg-digits", num_classes=4, in_channels=1).state_dict(), tmp_path / "weights.pt")
    if name == "compile" and missing():
        pytest.skip(missing())
    return name


def test_no_command_replaces_what_is_no_plain_file(models: list[str], tmp_path: Path, command: str) -> None:
    arguments = commands(models)[command]
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    run(*arguments, "-o", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes().startswith(BEGINS[command])

    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    run(*arguments, "-o", fifo)
    reader.join(60)
    assert read[0].startswith(BEGINS[command]) and stat.S_ISFIFO(fifo.stat().st_mode)

    try:
        os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        (tmp_path / "null").open("wb").close()
    except PermissionError:
        pytest.skip("device nodes need root, and a file system that allows them")
    run(*arguments, "-o", tmp_path / "null")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_a_dash_is_standard_output_and_all_else_is_said_beside_it(models: list[str], command: str) -> None:
    result = run(*commands(models)[command], "-o", "-")
    assert result.stdout_bytes.startswith(BEGINS[command])
    if command == "profile":
        assert list(json.loads(result.stdout)["variants"]) == ["small", "large"]
    if command == "pack":
        assert [variant.name for variant in Portfolio.open(result.stdout_bytes)] == ["small", "large"]
    assert not Path("-").exists()


def test_json_and_a_file_cannot_both_go_to_standard_output(models: list[str]) -> None:
    with pytest.raises(OnnxShiftError, match="--json: cannot go to standard output together with"):
        run("pack", *models, "-o", "-", "--json")


def test_a_portfolio_is_signed_and_inspected(models: list[str], tmp_path: Path) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization as s

    key = ed25519.Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    run("pack", *models, "--without", "small", "--sign", private, "-o", tmp_path / "p.zip")
    result = run("inspect", tmp_path / "p.zip", "--verify", "--trusted", public)
    assert "p.zip: whole, and onnxruntime loads every variant" in result.stderr and "large" in result.stdout
    assert f"signed by the key of {public}" in result.stdout
    assert "signed; --trusted KEY.pem checks by whom" in run("inspect", tmp_path / "p.zip").stdout
    run("pack", tmp_path / "p.zip", "-o", tmp_path / "unsigned.zip")
    assert json.loads(run("inspect", tmp_path / "unsigned.zip", "--json").stdout)["signed"] is False
    with pytest.raises(OnnxShiftError, match=r"unsigned\.zip: it is not signed"):
        run("inspect", tmp_path / "unsigned.zip", "--trusted", public)
    with pytest.raises(OnnxShiftError, match="is no portfolio, and only portfolios are signed"):
        run("inspect", models[0], "--trusted", public)


def test_a_portfolio_is_profiled_and_says_where_it_was_measured(models: list[str], tmp_path: Path) -> None:
    run("pack", *models, "-o", tmp_path / "p.zip")
    run("profile", tmp_path / "p.zip", "--seconds", "0.01", "--threads", "1", "-o", tmp_path / "profile.json")
    run("pack", tmp_path / "p.zip", "--profile", tmp_path / "profile.json", "--keep-all", "-o", tmp_path / "q.zip")
    text = run("inspect", tmp_path / "q.zip").stdout
    assert "measured on " in text and ", 1 thread, onnxruntime " in text and "small, large" in text


def test_verify_names_a_variant_that_cannot_be_loaded(models: list[str], tmp_path: Path) -> None:
    broken = network(16)
    broken.graph.node[0].op_type = "Konv"
    onnx.save(broken, tmp_path / "broken.onnx")
    run("pack", models[1], tmp_path / "broken.onnx", "-o", tmp_path / "p.zip")
    assert "broken" in run("inspect", tmp_path / "p.zip").stdout
    with pytest.raises(OnnxShiftError, match=r"broken: cannot be made ready .*Konv"):
        run("inspect", tmp_path / "p.zip", "--verify")
