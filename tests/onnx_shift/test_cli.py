"""The command group: every command has help and documentation, and wrong use is told in one line."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main
from typer.testing import CliRunner

from onnx_shift import __version__
from onnx_shift.cli import app

ROOT = Path(__file__).parents[2]
CONTRACT = {"demo", "train", "export", "prune", "verify", "profile", "pack", "inspect", "replay", "report"}

group = typer.main.get_command(app)
assert isinstance(group, click.Group) or hasattr(group, "commands")
COMMANDS = dict(group.commands)


def shift(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnx_shift", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_every_command_of_the_contract_exists() -> None:
    assert set(COMMANDS) >= CONTRACT


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help and len(command.help.split()) >= 6, f"{name}: no description"
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.opts[0]}: no help"  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_is_documented(name: str) -> None:
    pages = [
        ROOT / "README.md",
        *(page for page in (ROOT / "docs").glob("*.md") if page.name != "commands.md"),
    ]
    assert any(f"onnx-shift {name}" in page.read_text() for page in pages), f"{name}: not in README or docs"


def test_the_reference_is_what_the_commands_say(tmp_path: Path) -> None:
    made = tmp_path / "commands.md"
    generate = [
        "-m",
        "typer",
        "onnx_shift.cli",
        "utils",
        "docs",
        "--name",
        "onnx-shift",
        "--output",
        str(made),
    ]
    subprocess.run([sys.executable, *generate], check=True, capture_output=True, cwd=tmp_path)
    assert (ROOT / "docs" / "commands.md").read_text() == made.read_text(), "run `make docs`"


def test_version() -> None:
    assert shift("--version").stdout == f"onnx-shift {__version__}\n"


def test_no_command_shows_the_commands() -> None:
    done = shift()
    assert all(name in done.stdout + done.stderr for name in CONTRACT)


def test_unknown_command_is_wrong_usage() -> None:
    done = shift("shrink")
    assert done.returncode == 2
    assert "No such command 'shrink'" in done.stderr


BAD_INPUT = {
    "prune, missing file": (["prune", "absent.onnx"], "absent.onnx"),
    "prune, not ONNX": (["prune", "text.onnx"], "text.onnx"),
    "prune, unwritable output": (["prune", "model.onnx", "-o", "nowhere/out.onnx"], "nowhere/out.onnx"),
    "verify, missing file": (["verify", "model.onnx", "absent.onnx"], "absent.onnx"),
    "profile, not ONNX": (["profile", "text.onnx"], "text.onnx"),
    "pack, missing file": (["pack", "absent.onnx", "-o", "out.zip"], "absent.onnx"),
    "pack, not ONNX": (["pack", "text.onnx", "-o", "out.zip"], "text.onnx"),
    "inspect, neither": (["inspect", "text.onnx"], "text.onnx"),
    "inspect, truncated zip": (["inspect", "cut.zip"], "cut.zip"),
    "replay, truncated zip": (["replay", "cut.zip"], "cut.zip"),
    "report, missing": (["report", "absent"], "absent"),
    "train, unknown preset": (["train", "alexnet-mars"], "alexnet-mars"),
    "export, missing checkpoint": (["export", "absent.pt", "-o", "out.onnx"], "absent.pt"),
}


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text file called ONNX, a zip cut short, and one good model."""
    import onnx.parser

    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.onnx").write_text("this is no model")
    (folder / "cut.zip").write_bytes(b"PK\x03\x04" + b"\x00" * 40)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 4, 4] input) => (float[N, 2, 4, 4] output)'
        " { output = Relu(input) }"
    )
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_that_names_it(case: str, bad_folder: Path) -> None:
    arguments, named = BAD_INPUT[case]
    before = sorted(path.name for path in bad_folder.iterdir())
    done = shift(*arguments, cwd=bad_folder)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (1, 1), done.stderr
    assert named in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in bad_folder.iterdir()) == before
