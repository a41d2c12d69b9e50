"""The `onnx-shift` command: every sub-command, each a thin call into the part that does the work.

Heavy packages are imported inside the commands, so that `onnx-shift --help` stays quick and the base install
needs no torch.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from onnx_shift.errors import OnnxShiftError
from onnx_shift.version import __version__

if TYPE_CHECKING:
    from onnx_shift.runtime.portfolio import Portfolio

app = typer.Typer(
    name="onnx-shift",
    help="Turn a sparse convolutional network into a portfolio of small, fast ONNX models, and switch between them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

# Names of files and tensors are printed as they are: [v2] is no markup, :o: no emoji.
out = Console(soft_wrap=True, markup=False, emoji=False)  # results
log = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)  # progress and remarks
_LEAST_COLUMNS = 80  # a narrower terminal breaks a table's lines, rather than that figures are cut


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
    out.width = max(out.width, _LEAST_COLUMNS)


# --- train and export ------------------------------------------------------------------------------------------


@app.command()
def train(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Argument(
            help="What to train: digits, vgg16-quarter-cifar10, vgg16-cifar10, resnet20-cifar10, "
            "resnet50-tinyimagenet, resnet50-imagenet, or the recipe.json of a run.",
            metavar="PRESET",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run (default: runs/PRESET).", metavar="RUN"),
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Sparsity levels: ratios 2, 4 … 2^N.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs per level; milestones, warm-up and rewind step move in proportion."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How weights are chosen: imp (iterative magnitude with rewinding), refill, one-shot, random, snip, "
            "grasp, synflow, ntk-sap, or package.module:method."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model by name, or package.module:factory for any torch module.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="digits, a parquet file or folder, an image folder, or a name on the hub."),
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the images (default: by type).")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels (default: by type).")] = None,
    image_size: Annotated[int | None, typer.Option(help="Resize and crop all images to this size.")] = None,
    train_images: Annotated[
        int | None, typer.Option(help="Number of training images: the first, if these are of all classes.")
    ] = None,
    augmentation: Annotated[str | None, typer.Option(help="none, shift, flip-crop or resized-crop.")] = None,
    prune_share: Annotated[
        float | None,
        typer.Option(help="Share of the remaining weights removed per round: 0.5, or 0.2 as published."),
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="magnitude, or cost: weights of slow layers are removed first.")
    ] = None,
    cost_power: Annotated[
        float | None, typer.Option(help="With --rank cost: score / positions^POWER.", metavar="POWER")
    ] = None,
    refill_widen: Annotated[float | None, typer.Option(help="With refill: multiplier of channels kept.")] = None,
    refill_from: Annotated[int | None, typer.Option(help="With refill: the first level that refills.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Weight never pruned, by name or pattern. May be repeated.")
    ] = None,
    rewind_steps: Annotated[int | None, typer.Option(help="Batch to whose weights every level rewinds.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    schedule: Annotated[str | None, typer.Option(help="milestones or one-cycle.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or mixed with bfloat16 or float16.")] = None,
    channels_last: Annotated[
        bool | None,
        typer.Option("--channels-last/--channels-first", help="Memory order of images and weights."),
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Stop when this accuracy (0..1) can no longer be reached.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other field of the recipe, such as milestones=80,120 or label_smoothing=0.1. May be repeated.",
            metavar="FIELD=VALUE",
        ),
    ] = None,
    replicates: Annotated[
        int,
        typer.Option(help="Number of trainings, with consecutive seeds, into RUN/seed-0, RUN/seed-1 …", min=1),
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a graphics card if any.")] = "auto",
    tensorboard: Annotated[bool, typer.Option(help="Write RUN/tensorboard as well as the CSV files.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished levels as JSON.")] = False,
) -> None:
    """Train a network and its sparse levels; each is exported as RUN/level-NN.onnx, the dense one as level-00.onnx.

    The same command on an unfinished RUN resumes it. Several processes or machines share the work
    under torchrun: `torchrun --nproc-per-node 2 -m onnx_shift train …`.
    """
    # Read when torch is loaded. Threads that wait by spinning take the time of whatever else runs: on two cores, beside
    # a busy process, a training took six times as long; alone, as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from onnx_shift.exporter.command import train_command

    options = ("preset", "output", "replicates", "device", "tensorboard", "as_json")
    changes = {key: value for key, value in context.params.items() if key not in options}
    runs = train_command(
        preset,
        output,
        changes,
        replicates=replicates,
        device=device,
        tensorboard=tensorboard,
        out=out,
        log=log,
        quiet=as_json,
    )
    if as_json:
        print_json(runs)


@app.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint of a run (RUN/checkpoints/round-03.pt), or OpenLTH's weights.",
            metavar="CHECKPOINT",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE.onnx")],
    model: Annotated[str | None, typer.Option(help="Model of third-party weights (default: the one they fit).")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="The mask of third-party weights (default: mask.pth beside them).")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Image shape of third-party weights, such as 3,32,32.", metavar="C,H,W")
    ] = None,
) -> None:
    """Write a trained checkpoint as ONNX: dynamic batch, BatchNorm kept, removed weights exactly zero."""
    from onnx_shift.files import check_output

    check_output(output, checkpoint, mask or checkpoint.with_name("mask.pth"))
    from onnx_shift.exporter.openlth import export_any, parse_shape

    what = export_any(checkpoint, output, model=model, mask=mask, shape=parse_shape(shape))
    out.print(f"{output}: {what}")


# --- prune and verify ------------------------------------------------------------------------------------------


@app.command()
def prune(
    sparse: Annotated[Path, typer.Argument(help="The sparse ONNX model to prune.", metavar="SPARSE.onnx")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write; default: SPARSE.pruned.onnx beside the input."),
    ] = None,
    align: Annotated[
        int,
        typer.Option(help="Keep channel counts at multiples of this: fast kernels like 4; 1 is the smallest model."),
    ] = 4,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this file, as JSON.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why zero or dead channels stayed.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Run both models and refuse to write when outputs differ."),
    ] = True,
) -> None:
    """Remove every channel that contributes nothing; outputs stay the same on every input.

    A channel is removed when all its weights are zero, or when nothing reads it; what it still added through its bias
    moves into the layers that follow. Works on any ONNX model, needs no data and no training code.
    """
    from onnx_shift import files
    from onnx_shift.onnx_pruner.prune import prune as prune_model
    from onnx_shift.onnx_pruner.save import save
    from onnx_shift.views.prune import show

    if sparse.is_dir():
        raise OnnxShiftError(f"{sparse}: is a folder, not an ONNX model")
    target = output or sparse.with_name(f"{sparse.stem}.pruned.onnx")
    files.check_output(target, sparse)
    if report is not None:
        files.check_output(report, sparse, target)
    with log.status(Text(f"pruning {sparse} …")):
        result = prune_model(sparse, align=align, verify=verify)
    save(result, target, sparse)
    if report is not None:
        files.write_text(report, json.dumps(result.report.to_dict(), indent=2) + "\n")
    show(result.report, target, out, explain)


@app.command()
def verify(
    original: Annotated[Path, typer.Argument(help="The model to trust, for example the sparse one.", metavar="A.onnx")],
    pruned: Annotated[Path, typer.Argument(help="The model to compare with it.", metavar="B.onnx")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Where to run both: onnxruntime (default), reference or openvino. May be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the inputs.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Run two models on the same inputs and say whether their outputs are equal; exit status 1 when not."""
    from onnx_shift.onnx_pruner.verification.compare import compare

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
    models: Annotated[list[Path], typer.Argument(help="The models to measure side by side.", metavar="MODEL.onnx ...")],
    data: Annotated[
        str | None,
        typer.Option(help="Test images for the accuracy: digits, a folder or parquet file, or a name on the hub."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the profile here, for pack and report.", metavar="PROFILE.json"),
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option(help="Which of the models the others are compared with (default: ratio 1, else the largest)."),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size to time (default 1). May be repeated.", min=1)
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime execution provider (default CPUExecutionProvider). May be repeated."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that one inference may use.", min=1, max=1024)] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds to time each model at each batch size.", min=0.01)] = 2.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input with free axes, such as input=1,3,224,224. May be repeated."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Normalise images by this mean per channel, such as 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel, to go with --mean.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Resize and crop the images to this size.", min=1)] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the images (default: by type).")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels (default: by type).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON instead of tables.")] = False,
) -> None:
    """Measure models side by side: accuracy, latency, size, memory, and the cost of switching to each.

    Speed-ups are against the dense model with its BatchNorm fused, so fusion never counts as one.
    """
    from onnx_shift.files import check_output, write_text
    from onnx_shift.ort import CPU
    from onnx_shift.portfolio.evaluation import check_models, evaluation
    from onnx_shift.portfolio.profiling import Settings
    from onnx_shift.portfolio.profiling import profile as measure
    from onnx_shift.views.tables import profile_notes, profile_tables

    if output is not None:
        check_output(output, *models, *([Path(data)] if data else []))
    for option, given in {"--mean": mean, "--std": std, "--image-size": image_size, "--image-column": image_column,
                          "--label-column": label_column}.items():  # fmt: skip
        if given is not None and data is None:
            raise OnnxShiftError(f"{option}: says how the images of --data are to be read, and there is no --data")
    settings = Settings(
        batches=batch or [1],
        providers=provider or [CPU],
        threads=threads,
        seconds=seconds,
        attempts=3,
        input_shapes=dict(_parse_shape(text) for text in shape or []),
    )
    check_models(models, dense, settings.input_shapes or {}, settings.providers[0])
    images = None
    if data is not None:
        images = evaluation(
            data,
            models,
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            image_size=image_size,
            image_column=image_column,
            label_column=label_column,
            provider=settings.providers[0],
        )
        if images.note is not None:
            log.print(f"note: {images.note}", highlight=False)
    with log.status("measuring ...") as status:
        found = measure(
            models,
            dense=dense,
            data=images.batches if images else None,
            settings=settings,
            date=_today(),
            progress=lambda step: status.update(Text(step)),
        )
    if output is not None:
        write_text(output, json.dumps(found, indent=2) + "\n")
    if as_json:
        print_json(found)
        return
    for table in profile_tables(found):
        out.print(table)
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


@app.command()
def pack(
    models: Annotated[
        list[Path],
        typer.Argument(help="The variants; each is named after its file.", metavar="MODEL.onnx ..."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The portfolio file to write.", metavar="PORTFOLIO.zip")
    ],
    profile: Annotated[
        Path | None,
        typer.Option(help="The models' profile; keeps only the variants worth keeping.", metavar="PROFILE.json"),
    ] = None,
    max_variants: Annotated[int | None, typer.Option(help="Keep at most this many, the furthest apart.", min=1)] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Keep every model, also with --profile.")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What to choose by: accuracy, top5, latency, throughput, size, deflated, parameters, macs, memory or "
            "switch (default: accuracy, latency and size). May be repeated."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was packed as JSON.")] = False,
) -> None:
    """Pack models into one portfolio file, each deflated, for a device to switch between.

    All models must have the same inputs and outputs. The file is a plain zip: unpacked, each folder in it opens in any
    ONNX runtime. Nothing is measured here; without --profile all models are kept.
    """
    from onnx_shift.files import check_output
    from onnx_shift.portfolio.pack import pack as pack_models
    from onnx_shift.portfolio.pack import read_profile
    from onnx_shift.portfolio.select import DEFAULT_METRICS
    from onnx_shift.runtime.portfolio import Portfolio
    from onnx_shift.views.portfolio import (
        portfolio_summary,
        portfolio_table,
        selection_lines,
        selection_summary,
    )

    check_output(output, *models, *([profile] if profile else []))
    if metric and profile is None:
        raise OnnxShiftError(f"--metric {metric[0]}: nothing was measured to choose by; give --profile as well")
    measured = read_profile(profile) if profile is not None else None
    if measured is not None and (unknown := [m.stem for m in models if m.stem not in measured["variants"]]):
        raise OnnxShiftError(f"{profile}: does not list {', '.join(unknown)}; profile all models in one run")
    with log.status(Text(f"packing {output} …")):
        selection = pack_models(
            models,
            output,
            profile=measured,
            max_variants=max_variants,
            keep_all=keep_all,
            metrics=metric or DEFAULT_METRICS,
        )
        portfolio = Portfolio.open(output)
    if as_json:
        print_json({**portfolio_summary(portfolio), **selection_summary(selection)})
        return
    out.print(portfolio_table(portfolio))
    for name, reason in selection.dropped.items():
        log.print(f"left out {name}: {reason}", highlight=False)
    out.print(f"{output}: {show_portfolio_size(portfolio, output)}", highlight=False)
    for line in selection_lines(selection):
        out.print(line, highlight=False)


def show_portfolio_size(portfolio: "Portfolio", path: Path) -> str:
    """Return the number of variants and the file's size for people."""
    from onnx_shift.views.tables import show_bytes, show_number

    return f"{show_number(len(portfolio), 'variant')}, {show_bytes(path.stat().st_size)}"


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A portfolio or an ONNX model.", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON, for programs.")] = False,
) -> None:
    """Show what a portfolio or a model holds."""
    from onnx_shift.runtime.archive import is_archive

    if is_archive(file):
        _inspect_portfolio(file, as_json)
    else:
        _inspect_model(file, as_json)


def _inspect_portfolio(file: Path, as_json: bool) -> None:
    from onnx_shift.runtime.portfolio import Portfolio
    from onnx_shift.views.portfolio import portfolio_summary, portfolio_table, signature_line

    portfolio = Portfolio.open(file)
    if as_json:
        print_json(portfolio_summary(portfolio))
        return
    out.print(portfolio_table(portfolio))
    out.print(f"{show_portfolio_size(portfolio, file)}, {signature_line(portfolio)}", highlight=False)


def _inspect_model(file: Path, as_json: bool) -> None:
    from onnx_shift.views.model import layer_table, model_lines, model_summary

    summary = model_summary(file)
    if as_json:
        print_json(summary)
        return
    out.print(layer_table(summary))
    for line in model_lines(summary):
        out.print(line, highlight=False)


# --- replay, report and demo -----------------------------------------------------------------------------------


@app.command()
def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a folder with profile.json, or a portfolio.",
            metavar="RUN_OR_PORTFOLIO",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.", metavar="REPORT.html")] = Path(
        "report.html"
    ),
) -> None:
    """Write one HTML page with charts and tables: what each variant costs and gains, what was removed, and why.

    The page loads nothing from the network: send it, or open it anywhere.
    """
    from onnx_shift.files import check_output, write_text
    from onnx_shift.report.evidence import gather_evidence
    from onnx_shift.report.page import render_page

    check_output(output, source, *source.glob("*.json"), *source.glob("*/*.json"))
    write_text(output, render_page(gather_evidence(source)))
    out.print(f"wrote {output}", highlight=False)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything it writes.", metavar="DIR")
    ] = Path("demo"),
    levels: Annotated[
        int | None, typer.Option(help="Sparsity levels: ratios 2, 4 … 2^N (default 8).", min=1, max=8)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, for programs.")] = False,
) -> None:
    """Run the whole path on real handwritten digits: train, prune, measure, pack and switch. Takes minutes.

    Stopped half-way, the same command resumes the training it finds.
    """
    from onnx_shift.demo import demo_lines, run_demo
    from onnx_shift.views.tables import demo_table

    figures = run_demo(output, log, date=_today(), levels=levels)
    if as_json:
        print_json(figures)
        return
    out.print(demo_table(figures))
    for line in demo_lines(figures, output):
        out.print(line, highlight=False)


def _today() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


@app.command()
def replay(
    portfolio: Annotated[Path, typer.Argument(help="The portfolio to serve from.", metavar="PORTFOLIO.zip")],
    trace: Annotated[
        str,
        typer.Option(
            help="The load: ramp, step, burst, day, or a CSV file with the columns seconds, in equal steps, "
            "and load (1: what the largest variant can serve) or requests_per_second."
        ),
    ] = "day",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for replay.json and replay.png (default: none).", metavar="DIR"),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="latency, qps, or package.module:function of the objective in milliseconds.")
    ] = "latency",
    objective: Annotated[
        float | None,
        typer.Option(
            help="p95 latency objective, ms (default: 100, or ten requests of the largest variant).",
            min=0,
        ),
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds a built-in trace lasts.", min=1)] = 30,
    provider: Annotated[list[str] | None, typer.Option(help="onnxruntime execution provider. May be repeated.")] = None,
    threads: Annotated[int, typer.Option(help="Threads that one inference may use.", min=1, max=1024)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the arrival times.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the time line as JSON.")] = False,
) -> None:
    """Serve a load from a portfolio while a policy switches, beside the smallest and the largest variant always.

    Requests come when the trace says, whether or not the device keeps up. The trace is served three times, once for
    each of the three; what a policy that knows the load beforehand would reach is worked out for comparison.
    """
    from onnx_shift.files import check_folder, make_folder, write_text
    from onnx_shift.portfolio.sessions import session_options
    from onnx_shift.replaying import policy_maker, replay_trace, timeline_table
    from onnx_shift.runtime.portfolio import Portfolio
    from onnx_shift.runtime.replay import replay as serve
    from onnx_shift.views import timeline as drawing

    if output is not None:
        check_folder(output, ("replay.json", "replay.png"), portfolio, Path(trace))
    opened, load, make_policy = Portfolio.open(portfolio), replay_trace(trace, duration), policy_maker(policy)
    with log.status("timing the variants …") as status:
        found = serve(
            opened,
            load,
            make_policy=make_policy,
            objective_ms=objective,
            sess_options=session_options(threads),
            providers=provider,
            seed=seed,
            progress=lambda moment: status.update(Text(drawing.moment_line(moment))),
        )
    if output is not None:
        make_folder(output)
        write_text(output / "replay.json", json.dumps(found.to_dict(), indent=1) + "\n")
        log.print(f"wrote {output / 'replay.json'}", highlight=False)
        if drawing.can_draw():
            drawing.write_timeline_png(found, output / "replay.png")
            log.print(f"wrote {output / 'replay.png'}", highlight=False)
        else:
            log.print("replay.png is left out: it needs pip install 'onnx-shift[report]'", highlight=False)
    if as_json:
        print_json(found.to_dict())
        return
    out.print(timeline_table(found))


def main() -> NoReturn:
    """Run the command line. Exit status: 0 done, 1 an expected refusal, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → is shown ?
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OnnxShiftError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.filename is None:  # what is left in the buffer is not to fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except ModuleNotFoundError as error:
        extra = "report" if error.name == "matplotlib" else "train"
        _fail(
            f"{' '.join(sys.argv[1:2])}: needs {error.name}, which is not installed: pip install 'onnx-shift[{extra}]'"
        )
    except MemoryError:
        _fail(f"{' '.join(sys.argv[1:])}: out of memory")
    except Exception as error:  # the last resort: a defect of ours is told in one line as well
        if os.environ.get("ONNX_SHIFT_TRACEBACK"):
            raise
        _fail(
            f"{' '.join(sys.argv[1:])}: a defect of onnx-shift ({type(error).__name__}: {error}); "
            "please report it with what ONNX_SHIFT_TRACEBACK=1 shows"
        )
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(1)
