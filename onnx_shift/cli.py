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
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


# --- train and export ------------------------------------------------------------------------------------------


# --- prune and verify ------------------------------------------------------------------------------------------


@app.command()
def verify(
    original: Annotated[
        Path, typer.Argument(help="The model to trust, for example the sparse one.", metavar="A.onnx")
    ],
    pruned: Annotated[Path, typer.Argument(help="The model to hold against it.", metavar="B.onnx")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to run both: onnxruntime (default), reference or openvino. May be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Run two models on the same inputs and say whether their outputs are equal; exit status 1 when not."""
    from onnx_shift.onnx_pruner.verify import compare

    result = compare(original, pruned, runtimes=runtime or ["onnxruntime"], seed=seed)
    if as_json:
        print_json(result.to_dict())
    for one in () if as_json else result.runtimes:
        out.print(
            f"{one.runtime}: {'equal' if one.equal else 'different'} on {one.inputs} inputs, "
            f"largest difference {one.largest_difference:.1e} of the output's scale "
            f"({one.tolerance:.0e} allowed)",
            highlight=False,
        )
    for note in result.notes:
        log.print(f"note: {note}", highlight=False)
    if not result.equal:
        raise OnnxShiftError(f"{original} and {pruned} are not equal: {result.reason}")


# --- profile, pack and inspect ---------------------------------------------------------------------------------


@app.command()
def profile(
    models: Annotated[
        list[Path], typer.Argument(help="The models to measure side by side.", metavar="MODEL.onnx ...")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Test images for the accuracy: digits, a folder or parquet file, or a name on the hub."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the profile here, for pack and report.", metavar="PROFILE.json"
        ),
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option(
            help="Which of the models the others are compared with (default: ratio 1, else the largest)."
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size to time (default 1). May be repeated.", min=1)
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime execution provider (default CPUExecutionProvider). May be repeated."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that one inference may use.", min=1)] = 1,
    seconds: Annotated[
        float, typer.Option(help="Seconds to time each model at each batch size.", min=0.01)
    ] = 2.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input with free axes, such as input=1,3,224,224. May be repeated."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Normalise images by this mean per channel, such as 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Standard deviation per channel, to go with --mean.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize and crop the images to this size.", min=1)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the profile as JSON instead of a table.")
    ] = False,
) -> None:
    """Measure models side by side: accuracy, latency, size, memory, and the cost of switching to each.

    Speed-ups are against the dense model with its BatchNorm fused, so fusion never counts as one.
    """
    from datetime import datetime, timezone

    from onnx_shift.evaluation import labelled_images
    from onnx_shift.files import write_text
    from onnx_shift.onnx_pruner.profiling import CPU, Settings
    from onnx_shift.onnx_pruner.profiling import profile as measure
    from onnx_shift.tables import profile_notes, profile_table

    settings = Settings(
        batches=batch or [1],
        providers=provider or [CPU],
        threads=threads,
        seconds=seconds,
        attempts=3,
        input_shapes=dict(_parse_shape(text) for text in shape or []),
    )
    images = None
    if data is not None:
        images = labelled_images(
            data, models[0], _numbers("--mean", mean), _numbers("--std", std), image_size
        )
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    with log.status("measuring ...") as status:
        found = measure(
            models, dense=dense, data=images, settings=settings, date=date, progress=status.update
        )
    if output is not None:
        write_text(output, json.dumps(found, indent=2) + "\n")
    if as_json:
        print_json(found)
        return
    out.print(profile_table(found))
    for line in profile_notes(found):
        out.print(line, highlight=False)


def _numbers(option: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise OnnxShiftError(f"{option} {text}: give numbers separated by commas") from error


def _parse_shape(text: str) -> tuple[str, list[int]]:
    name, _, axes = text.rpartition("=")
    if not name or not all(axis.strip().isdigit() for axis in axes.split(",")):
        raise OnnxShiftError(f"--shape {text}: give an input's name and its axes, such as input=1,3,224,224")
    return name, [int(axis) for axis in axes.split(",")]


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
