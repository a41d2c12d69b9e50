"""The `onnx-shift` command: every sub-command with its options; `commands` does the work.

Heavy packages are imported inside the commands, so that `onnx-shift --help` stays quick and the base install
needs no torch.
"""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from onnx_shift.console import log, note, out, print_json
from onnx_shift.errors import OnnxShiftError
from onnx_shift.options import as_option
from onnx_shift.version import __version__

app = typer.Typer(
    name="onnx-shift",
    help="Turn a sparse convolutional network into a portfolio of small, fast ONNX models, and switch between them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_SERVING = ("starlette", "uvicorn", "prometheus_client", "orjson")
_EXTRA_OF = {"matplotlib": "report", "PIL": "eval", **dict.fromkeys(_SERVING, "serve")}  # of other packages: train
_LEAST_COLUMNS = 80  # a narrower terminal breaks a table's lines, rather than that figures are cut


# --- options that several commands have --------------------------------------------------------------------------

Target = Annotated[
    str, typer.Option(help="Processor that will run it: this, x86-64-avx512, x86-64-avx2, arm64 or any.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]
Providers = Annotated[
    list[str] | None,
    typer.Option("--provider", help="onnxruntime execution provider (default CPUExecutionProvider). May be repeated."),
]
Threads = Annotated[int, typer.Option(help="Threads that one inference may use.", min=1, max=1024)]
Seed = Annotated[int, typer.Option(help="Seed of what is drawn at random.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Mean = Annotated[str | None, typer.Option(help="Normalise images by this mean per channel, such as 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option(help="Standard deviation per channel, to go with --mean.")]
ImageSize = Annotated[int | None, typer.Option(help="Resize and crop the images to this size.", min=1)]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images (default: by type).")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels (default: by type).")]


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
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Weights to begin with, not trained anew: a checkpoint or an ONNX file of the same model. Levels "
            "prune and retrain from there, at a tenth of the preset's learning rate unless one is given.",
            metavar="CHECKPOINT.pt|MODEL.onnx",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="An npz file, an image folder, a parquet file or folder, digits, package.module:function; else a name "
            "on the hub."
        ),
    ] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    image_size: ImageSize = None,
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
    block: Annotated[
        int | None,
        typer.Option(
            help="Weights of 2 or 4 consecutive output channels at the same place stay or go together: sparse kernels "
            "load their input once for all."
        ),
    ] = None,
    refill_widen: Annotated[float | None, typer.Option(help="With refill: multiplier of channels kept.")] = None,
    refill_from: Annotated[int | None, typer.Option(help="With refill: the first level that refills.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Weight never pruned, by name or pattern. May be repeated.")
    ] = None,
    rewind_steps: Annotated[int | None, typer.Option(help="Batch to whose weights every level rewinds.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="A loss of your own, package.module:function of scores and class numbers."),
    ] = None,
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
    as_json: AsJson = False,
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
    how = {key: context.params[key] for key in ("replicates", "device", "tensorboard")}
    runs = train_command(preset, output, changes, **how, out=out, log=log, quiet=as_json)
    if as_json:
        print_json(runs)
        return
    from onnx_shift.conversion import gain_lines

    note(*(line for run in runs for line in gain_lines(run)))


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
    from onnx_shift.commands import export_checkpoint

    export_checkpoint(checkpoint, output, model=model, mask=mask, shape=shape)


# --- prune and verify ------------------------------------------------------------------------------------------


@app.command()
def prune(
    models: Annotated[list[Path], typer.Argument(help="The sparse ONNX models to prune.", metavar="SPARSE.onnx ...")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write: a file, or a folder for several; default: SPARSE.pruned.onnx beside the input.",
            metavar="FILE|FOLDER",
        ),
    ] = None,
    align: Annotated[
        str | None,
        typer.Option(
            help="Keep channel counts at multiples of this: 1 is the smallest model; auto measures here and keeps the "
            "fastest (default: by --target).",
            metavar="N|auto",
        ),
    ] = None,
    target: Target = "this",
    report: Annotated[Path | None, typer.Option(help="Also write the report to this file, as JSON.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why zero or dead channels stayed.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Run both models and refuse to write when outputs differ."),
    ] = True,
    sparse_initializers: Annotated[
        bool,
        typer.Option(
            "--sparse-initializers",
            help="Store each weight as an ONNX sparse tensor where that is smaller in the file.",
        ),
    ] = False,
    sparse_kernels: Annotated[
        bool,
        typer.Option(
            "--sparse-kernels",
            help="For ModelSwitcher and compile: layers that are mostly zero keep no channels for alignment.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove every channel that contributes nothing; outputs stay the same on every input.

    A channel is removed when all its weights are zero, or when nothing reads it; what it still added through its bias
    moves into the layers that follow. Works on any ONNX model, needs no data and no training code.
    """
    from onnx_shift.conversion import prune_files

    telling: dict[str, Any] = {"report": report, "explain": explain, "as_json": as_json, "quiet": quiet}
    options: dict[str, Any] = {"verify": verify, "sparse_initializers": sparse_initializers}
    fit: dict[str, Any] = {"align": align, "target": target, "sparse_kernels": sparse_kernels}
    prune_files(models, output, **fit, **options, **telling)


@app.command(name="compile")
def compile_(
    model: Annotated[Path, typer.Argument(help="The sparse ONNX model.", metavar="MODEL.onnx")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.", metavar="FAST.onnx")],
    batch: Annotated[int, typer.Option(help="Images at a time that it will serve.", min=1)] = 1,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input with other free axes, such as input=1,3,224,224. May be repeated."),
    ] = None,
    threads: Threads = 1,
    layers: Annotated[bool, typer.Option("--layers", help="Show what was measured of each layer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model fast on this device: its sparse layers run on our kernels where measuring shows that they gain.

    For plain onnxruntime: `onnx_shift.runtime.kernels.register(session_options)` lets a session run it. A switcher does
    this by itself. Outputs stay the same but for rounding.
    """
    from onnx_shift.commands import compile_file

    compile_file(model, output, batch, shape or [], threads=threads, layers=layers, as_json=as_json)


@app.command()
def verify(
    original: Annotated[Path, typer.Argument(help="The model to trust, for example the sparse one.", metavar="A.onnx")],
    pruned: Annotated[Path, typer.Argument(help="The model to compare with it.", metavar="B.onnx")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to run both: onnxruntime (default), reference, openvino, mnn, ncnn or litert. May be repeated."
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run two models on the same inputs and say whether their outputs are equal; exit status 1 when not."""
    from onnx_shift.commands import verify_files

    verify_files(original, pruned, runtime or ["onnxruntime"], seed, as_json)


@app.command()
def quantize(
    models: Annotated[list[Path], typer.Argument(help="The models to quantise.", metavar="MODEL.onnx ...")],
    data: Annotated[
        str, typer.Option(help="Images to calibrate and to check on: see profile --data.", metavar="NAME_OR_PATH")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write: a file, or a folder for several; default: MODEL.int8.onnx beside the input.",
            metavar="FILE|FOLDER",
        ),
    ] = None,
    align: Annotated[
        int | None, typer.Option(help="As with prune, which is done first (default: by --target, for int8).", min=1)
    ] = None,
    target: Target = "this",
    calibration_images: Annotated[
        int, typer.Option(help="Images of the training split from which ranges are taken.", min=1)
    ] = 256,
    max_drop: Annotated[
        float, typer.Option(help="Largest loss of accuracy; a model that loses more is not written.", min=0, max=1)
    ] = 0.02,
    mean: Mean = None,
    std: Std = None,
    image_size: ImageSize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Prune, then quantise to int8 by onnxruntime's quantiser, and check accuracy and outputs on test images.

    Weights get one scale per channel, values their ranges from images of the training split (QDQ). Float and int8
    variants share a portfolio.
    """
    from onnx_shift.conversion import quantize_files

    columns = {"image_column": image_column, "label_column": label_column}
    reading = {"mean": mean, "std": std, "image_size": image_size, **columns}
    options = {"align": align, "target": target, "calibration_images": calibration_images, "max_drop": max_drop}
    quantize_files(models, output, data=data, reading=reading, as_json=as_json, quiet=quiet, **options)


# --- profile, pack and inspect ---------------------------------------------------------------------------------


@app.command()
def profile(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="The models to measure side by side; a portfolio stands for its variants.",
            metavar="MODEL.onnx|PORTFOLIO.zip ...",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Test images for the accuracy: an npz file, a folder, a parquet file, digits, or, where there is no "
            "such file here, a name on the hub."
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="A function of your own, for any task: called with one that answers as InferenceSession.run, it "
            "returns a share, or several by name.",
            metavar="PKG.MOD:FUNCTION",
        ),
    ] = None,
    accuracy: Annotated[
        list[str] | None,
        typer.Option(help="The accuracy of a model, measured elsewhere. May be repeated.", metavar="FILE=SHARE"),
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
    provider: Providers = None,
    threads: Threads = 1,
    kernels: Annotated[
        bool,
        typer.Option("--kernels/--no-kernels", help="Run scattered zeros on sparse kernels where that is faster."),
    ] = True,
    cascade: Annotated[
        bool,
        typer.Option("--cascade", help="Choose on the images of --data when a variant is to ask a more accurate one."),
    ] = False,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Another runtime to time the models on: openvino, mnn, ncnn or litert. May be repeated."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show of each layer what it takes dense and on sparse kernels.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Seconds to time each model at each batch size.", min=0.01)] = 2.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input with free axes, such as input=1,3,224,224. May be repeated."),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    image_size: ImageSize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    as_json: AsJson = False,
) -> None:
    """Measure models side by side: accuracy, latency, size, memory, and the cost of switching to each.

    Speed-ups are against the dense model with its BatchNorm fused, so fusion never counts as one.
    """
    from onnx_shift.commands import profile_files
    from onnx_shift.ort import CPU

    columns = {"image_column": image_column, "label_column": label_column}
    reading = {"mean": mean, "std": std, "image_size": image_size, **columns}
    devices = {"providers": provider or [CPU], "threads": threads, "kernels": kernels, "cascade": cascade}
    settings: dict[str, Any] = {"batches": batch or [1], "seconds": seconds, "runtimes": runtime or [], **devices}
    scores: dict[str, Any] = {"data": data, "evaluate": evaluate, "accuracy": accuracy or []}
    timed: dict[str, Any] = {"dense": dense, "shapes": shape or [], "layers": layers}
    profile_files(models, output, reading=reading, as_json=as_json, **scores, **timed, **settings)


@app.command()
def pack(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="The variants, each named after its file; a portfolio stands for all of its own.",
            metavar="MODEL.onnx|PORTFOLIO.zip ...",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The portfolio file to write.", metavar="PORTFOLIO.zip")
    ],
    without: Annotated[list[str] | None, typer.Option(help="A variant to leave out. May be repeated.")] = None,
    sign: Annotated[
        Path | None, typer.Option(help="Sign with this private Ed25519 key, in PEM.", metavar="KEY.pem")
    ] = None,
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
            "switch, or a score of the profile, which policies then rank by (default: accuracy, latency and size). "
            "May be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack models into one portfolio file, each deflated, for a device to switch between.

    All models must have the same inputs and outputs. The file is a plain zip: unpacked, each folder in it opens in any
    ONNX runtime. Nothing is measured here; without --profile all models are kept.
    """
    from onnx_shift.commands import pack_files

    choice = {"max_variants": max_variants, "keep_all": keep_all, "without": without or [], "sign": sign}
    pack_files(models, output, profile=profile, metrics=metric or [], as_json=as_json, **choice)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A portfolio or an ONNX model.", metavar="FILE")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all of it, and that onnxruntime loads every variant.")
    ] = False,
    trusted: Annotated[
        Path | None, typer.Option(help="Only if signed by this public Ed25519 key, in PEM.", metavar="KEY.pem")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a portfolio or a model holds."""
    from onnx_shift.commands import inspect_file

    inspect_file(file, as_json, verify=verify, trusted=trusted)


# --- replay, report and demo -----------------------------------------------------------------------------------


@app.command()
def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a folder with profile.json, a profile, or a portfolio.",
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
    from onnx_shift.commands import write_report

    write_report(source, output)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything it writes.", metavar="DIR")
    ] = Path("demo"),
    levels: Annotated[
        int | None, typer.Option(help="Sparsity levels: ratios 2, 4 … 2^N (default 8).", min=1, max=8)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole path on real handwritten digits: train, prune, measure, pack and switch. Takes minutes.

    Stopped half-way, the same command resumes the training it finds.
    """
    from onnx_shift.commands import demonstrate

    demonstrate(output, levels, as_json)


@app.command()
def replay(
    portfolio: Annotated[Path, typer.Argument(help="The portfolio to serve from.", metavar="PORTFOLIO.zip")],
    trace: Annotated[
        str,
        typer.Option(
            help="The load: ramp, step, burst, day; at random poisson, gamma or bursty; or a CSV file with the columns "
            "seconds, in equal steps, and load (1: what the largest variant can serve) or requests_per_second, or of "
            "invocations per minute, as the Azure Functions traces have them."
        ),
    ] = "day",
    load: Annotated[
        float | None,
        typer.Option(
            help="Mean load of a random trace or of invocations; 1: all that the largest variant serves.", min=0
        ),
    ] = None,
    cv: Annotated[
        float | None,
        typer.Option(help="With gamma and bursty: coefficient of variation of the gaps; 1 is poisson.", min=0),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for replay.json and replay.png (default: none).", metavar="DIR"),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="latency, deadline, qps, profile, slack, scaling, or package.module:function of the objective in "
            "milliseconds."
        ),
    ] = "latency",
    objective: Annotated[
        float | None,
        typer.Option(
            help="p95 latency objective, ms (default: 100, or ten requests of the largest variant).",
            min=0,
        ),
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds a built-in trace lasts.", min=1)] = 30,
    provider: Providers = None,
    threads: Threads = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Serve a load from a portfolio while a policy switches, beside the smallest and the largest variant always.

    Requests come when the trace says, whether or not the device keeps up. The trace is served three times, once for
    each of the three; what a policy that knows the load beforehand would reach is worked out for comparison.
    """
    from onnx_shift.commands import replay_portfolio

    served: dict[str, Any] = {"policy": policy, "objective_ms": objective, "threads": threads, "providers": provider}
    requests: dict[str, Any] = {"load": load, "cv": cv, "duration": duration, "seed": seed}
    replay_portfolio(portfolio, trace, output, as_json=as_json, **served, **requests)


@app.command()
def serve(
    context: typer.Context,
    portfolio: Annotated[Path, typer.Argument(help="The portfolio to serve.", metavar="PORTFOLIO.zip")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)] = 8080,
    name: Annotated[str | None, typer.Option(help="The model's name (default: the file's, without .zip).")] = None,
    p95: Annotated[
        float | None, typer.Option(help="Keep 95 of 100 requests within so many milliseconds.", metavar="MS", min=0)
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="latency, deadline, qps, profile, slack, scaling, or package.module:function of the objective in "
            "milliseconds (default: latency where --p95 is given, else none)."
        ),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Variant to begin with (default: that of median size).")] = None,
    provider: Providers = None,
    threads: Threads = 1,
    workers: Annotated[int, typer.Option(help="Requests answered at a time.", min=1, max=1024)] = 1,
    queue: Annotated[int, typer.Option(help="Requests that may wait; further ones get 429.", min=1)] = 256,
    max_body: Annotated[int, typer.Option(help="Most bytes of a request's body; above: 413.", min=1)] = 64 << 20,
    max_batch: Annotated[int, typer.Option(help="Most rows of a request, and of a shared run.", min=1)] = 1024,
    batch_ms: Annotated[
        float, typer.Option(help="Let a request wait so long for others to share a run with.", min=0)
    ] = 0,
    body_timeout: Annotated[
        float, typer.Option(help="Seconds that a client may pause while it sends; then: 408.", min=0.1)
    ] = 10,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a request may wait for its answer; then: 503.", min=0.1)
    ] = 60,
    linger: Annotated[
        float, typer.Option(help="Seconds after SIGTERM in which requests are taken, though it is not ready.", min=0)
    ] = 0.5,
    drain: Annotated[float, typer.Option(help="Seconds after that in which requests may finish.", min=0)] = 30,
    trusted: Annotated[
        Path | None, typer.Option(help="Public key (PEM) that must have signed the portfolio.", metavar="FILE.pem")
    ] = None,
    allow_load: Annotated[bool, typer.Option("--allow-load", help="Let clients have the file read again.")] = False,
    access_log: Annotated[bool, typer.Option(help="Log each request as a line of JSON on stderr.")] = True,
) -> None:
    """Serve a portfolio over HTTP by the Open Inference Protocol, until SIGTERM or Ctrl-C.

    SIGHUP reads the file again and exchanges the portfolio while requests run. `/metrics` is for Prometheus.
    """
    from onnx_shift.serving.command import serve_portfolio

    serve_portfolio(**context.params)


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
        _fail(error.told(as_option))
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.filename is None:  # what is left in the buffer is not to fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get(str(error.name).partition(".")[0], "train")
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
