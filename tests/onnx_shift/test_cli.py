"""The command group: every command has help and documentation, and wrong use is told in one line."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main
from typer.testing import CliRunner

from onnx_shift import __version__
from onnx_shift.cli import app
from tests.onnx_shift.models import refusal, shift

ROOT = Path(__file__).parents[2]
CONTRACT = {"demo", "train", "export", "prune", "verify", "profile", "pack", "inspect", "replay", "report", "serve"}


group = typer.main.get_command(app)
assert isinstance(group, click.Group) or hasattr(group, "commands")
COMMANDS = dict(group.commands)


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


LONGEST_BODY = 15


def test_commands_are_thin() -> None:
    tree = ast.parse((ROOT / "onnx_shift" / "cli.py").read_text())
    bodies = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("app.command" in ast.unparse(d) for d in node.decorator_list):
            _, first, *_ = node.body  # behind the docstring
            bodies[node.name.rstrip("_")] = (node.end_lineno or 0) - first.lineno + 1
    assert set(bodies) == set(COMMANDS)
    assert {name: lines for name, lines in bodies.items() if lines > LONGEST_BODY} == {}


def test_an_option_of_several_commands_is_declared_once() -> None:
    tree = ast.parse((ROOT / "onnx_shift" / "cli.py").read_text())
    declared = [
        (argument.arg, ast.unparse(argument.annotation))
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
        if argument.annotation is not None and "Annotated" in ast.unparse(argument.annotation)
    ]
    assert [one for one in declared if declared.count(one) > 1] == []


def test_shell_completion_completes_commands_and_can_be_shown() -> None:
    asked = {"_ONNX_SHIFT_COMPLETE": "complete_bash", "COMP_WORDS": "onnx-shift pr", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['onnx-shift']; from onnx_shift.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["prune", "profile"]
    shown = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    code = code.replace("['onnx-shift']", "['onnx-shift', '--show-completion', 'bash']")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **shown}, capture_output=True, text=True, check=False
    )
    assert "_ONNX_SHIFT_COMPLETE=complete_bash" in done.stdout
    assert "--install-completion" in shift("--help").stdout


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


def test_a_command_whose_extra_is_not_installed_names_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from onnx_shift.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "digits"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "error: train: needs torch, which is not installed: pip install 'onnx-shift[train]'\n",
    )


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


OVERWRITING = [
    ["prune", "A", "-o", "A"],
    ["prune", "A", "--report", "A"],
    ["prune", "A", "-o", "new", "--report", "new"],
    ["profile", "A", "-o", "A"],
    ["profile", "A", "--data", "B", "-o", "B"],
    ["pack", "A", "B", "-o", "A"],
    ["pack", "A", "--profile", "B", "-o", "B"],
    ["export", "A", "-o", "A"],
    ["report", "A", "-o", "A"],
    ["report", "FOLDER", "-o", "FOLDER/profile.json"],
    ["replay", "A", "--trace", "FOLDER/replay.json", "-o", "FOLDER"],
]


@pytest.mark.parametrize("arguments", OVERWRITING, ids=" ".join)
def test_no_command_writes_over_what_it_reads(arguments: list[str], bad_folder: Path, tmp_path: Path) -> None:
    names = {"A": tmp_path / "a.onnx", "B": tmp_path / "b.onnx", "new": tmp_path / "new", "FOLDER": tmp_path}
    model = (bad_folder / "model.onnx").read_bytes()
    for name in ("a.onnx", "b.onnx", "profile.json", "replay.json"):
        (tmp_path / name).write_bytes(model)
    message = refusal(*[a.replace("FOLDER", str(tmp_path)) if "/" in a else names.get(a, a) for a in arguments])
    assert message.endswith(": the same command reads or writes this file already; name another")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a.onnx", "b.onnx", "profile.json", "replay.json"), model
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prune", "MODEL", "--report", "none/x.json"],
            "none/x.json: cannot be written (there is no folder none)",
        ),
        (["prune", "cut.zip", "-o", "MODEL/x.onnx"], "cannot be written (MODEL is no folder)"),
        (["profile", "MODEL", "-o", "FOLDER"], "is a folder, not a file to write"),
        (
            ["report", "FOLDER", "-o", "none/x.html"],
            "none/x.html: cannot be written (there is no folder none)",
        ),
        (
            ["export", "MODEL", "-o", "none/x.onnx"],
            "none/x.onnx: cannot be written (there is no folder none)",
        ),
        (["demo", "-o", "MODEL"], "cannot be made (MODEL is no folder)"),
        (["train", "digits", "-o", "MODEL"], "cannot be made (MODEL is no folder)"),
        (["replay", "cut.zip", "-o", "MODEL/deep"], "cannot be made (MODEL is no folder)"),
        (["pack", "MODEL", "-o", "FOLDER/x.zip", "--metric", "size"], "--metric size: nothing was measured"),
    ],
)
def test_where_to_write_is_checked_before_any_work(arguments: list[str], message: str, bad_folder: Path) -> None:
    before = sorted(bad_folder.rglob("*"))
    places = {"MODEL": str(bad_folder / "model.onnx"), "FOLDER": str(bad_folder)}

    def placed(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    assert placed(message) in refusal(*map(placed, arguments))
    assert sorted(bad_folder.rglob("*")) == before


def test_names_are_printed_as_they_are(bad_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "net[v2] [bold] :car: [" / "z].onnx"
    model.parent.mkdir()
    (tmp_path / "q[").mkdir()
    model.write_bytes((bad_folder / "model.onnx").read_bytes())
    pruned = CliRunner().invoke(app, ["prune", str(model), "-o", f"{tmp_path}/q[/z].onnx"])
    assert f"{tmp_path}/q[/z].onnx is a byte-identical copy" in pruned.output
    assert str(model) in CliRunner().invoke(app, ["inspect", str(model)]).output
    named = model.rename(tmp_path / "net[v2].onnx")
    packed = CliRunner().invoke(app, ["pack", str(named), "-o", f"{tmp_path}/p[red].zip"])
    assert packed.output.splitlines()[1].split()[0] == "net[v2]"
    assert f"{tmp_path}/p[red].zip: 1 variant" in packed.output


def test_a_terminal_that_lacks_a_character_is_shown_another(bad_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnx_shift", "inspect", str(bad_folder / "model.onnx")],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout and done.stdout.isascii()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["--version"], ["inspect", "model.onnx"], ["inspect", "--json", "model.onnx"]])
def test_a_full_disk_behind_stdout_is_told_in_one_line(arguments: list[str], bad_folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "onnx_shift", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=bad_folder, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


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
def test_what_cannot_be_done_is_told_in_one_line(models: list[Path], arguments: list[str], message: str) -> None:
    done = shift(*[str(models[1]) if argument == "MODEL" else argument for argument in arguments])
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
