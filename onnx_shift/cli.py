"""The `onnx-shift` command: every sub-command, each a thin call into the part that does the work.

Heavy packages are imported inside the commands, so that `onnx-shift --help` stays quick and the base install
needs no torch.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from onnx_shift.errors import OnnxShiftError
from onnx_shift.version import __version__

app = typer.Typer(
    name="onnx-shift",
    help="Turn a sparse convolutional network into a portfolio of small, fast ONNX models, and switch between them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

out = Console(soft_wrap=True)  # results
log = Console(stderr=True, soft_wrap=True)  # progress and remarks


def print_json(value: Any) -> None:
    """Write `value` as JSON on stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"onnx-shift {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


# --- train and export ------------------------------------------------------------------------------------------


# --- prune and verify ------------------------------------------------------------------------------------------


# --- profile, pack and inspect ---------------------------------------------------------------------------------


# --- replay, report and demo -----------------------------------------------------------------------------------


def main() -> NoReturn:
    """Run the command line. Exit status: 0 done, 1 an expected refusal, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except OnnxShiftError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)
