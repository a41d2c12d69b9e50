"""What the commands do with what the command line gives them; the options themselves are declared in `cli`.

Parts are imported inside the functions, so that a command loads what it needs and no more.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from onnx_shift.console import log, note, out, print_json, print_lines, results_beside
from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import (
    check_folder,
    check_output,
    import_named,
    is_stream,
    make_folder,
    read_bytes,
    write_bytes,
    write_text,
)
from onnx_shift.options import as_option

if TYPE_CHECKING:
    from onnx_shift.onnx_pruner.verification.engines import Source
    from onnx_shift.portfolio.evaluation import Evaluation
    from onnx_shift.portfolio.profile import Profile
    from onnx_shift.runtime.kernels import Choice
    from onnx_shift.runtime.replay import Timeline


def today() -> str:
    """The date of a measurement, such as 2024-05-06."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def compile_file(
    model: Path, output: Path, batch: int, shapes: Sequence[str], *, threads: int, layers: bool, as_json: bool
) -> None:
    """Write `model` with its sparse layers on our kernels where that is faster here, and show what it gains."""
    from onnx_shift.files import write_bytes
    from onnx_shift.views.kernels import choice_lines, choice_summary, choice_table

    check_output(output, model)
    results_beside(output, as_json)
    with log.status(Text(f"measuring {model} …")):
        choice = _compiled(model, batch, dict(_parse_shape(text) for text in shapes), threads)
    write_bytes(output, choice.model.SerializeToString())
    if as_json:
        print_json(choice_summary(choice))
        return
    if layers and choice.layers:
        out.print(choice_table(choice))
    print_lines(*choice_lines(choice, output))


def _compiled(model: Path, batch: int, shapes: Mapping[str, Sequence[int]], threads: int) -> "Choice":
    from onnx_shift import fold_batch_norm
    from onnx_shift.portfolio.sessions import session_options
    from onnx_shift.runtime.kernels import compile_model

    folded = fold_batch_norm(model)
    return compile_model(folded, batch=batch, shapes=shapes, make_options=lambda: session_options(threads))


def verify_files(original: Path, pruned: Path, runtimes: Sequence[str], seed: int, as_json: bool) -> None:
    """Compare two models and show what each runtime says. Raises OnnxShiftError when they are not equal."""
    from onnx_shift.onnx_pruner.verification.compare import compare

    result = compare(_with_kernels(original), _with_kernels(pruned), runtimes=runtimes, seed=seed)
    if as_json:
        print_json(result.to_dict())
    for one in () if as_json else result.runtimes:
        print_lines(
            f"{one.runtime}: {'equal' if one.equal else 'different'} on {one.inputs} inputs, "
            f"largest difference {one.largest_difference:.1e} of the output's scale "
            f"({one.tolerance:.0e} allowed)"
        )
    note(*(f"note: {line}" for line in result.notes))
    if not result.equal:
        raise OnnxShiftError(f"{original} and {pruned} are not equal: {result.reason}")


def _with_kernels(path: Path) -> "Source":
    """Return the model to verify; one that `compile` wrote is run with the kernels that it needs."""
    from onnx_shift.onnx_pruner.verification.engines import read
    from onnx_shift.runtime import kernels
    from onnx_shift.runtime.kernels.rewrite import DOMAIN

    source = read(path, str(path))
    compiled = any(node.domain == DOMAIN for node in source.graph.node)
    return replace(source, register=kernels.register) if compiled else source


# --- profile and pack ------------------------------------------------------------------------------------------


def profile_files(
    models: Sequence[Path],
    output: Path | None,
    *,
    dense: Path | None,
    data: str | None,
    evaluate: str | None = None,
    accuracy: Sequence[str] = (),
    reading: Mapping[str, Any],
    shapes: Sequence[str],
    layers: bool = False,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure `models` and show or write their profile.

    `reading` says how the images of `data` are to be read; `shapes` and `settings` are those of `Settings`. What would
    fail at the end is refused before anything is measured. With `layers` each layer's choice is shown, too.
    """
    from onnx_shift.portfolio.evaluation import check_models
    from onnx_shift.portfolio.inputs import open_sources
    from onnx_shift.portfolio.profiling import Settings, profile
    from onnx_shift.runtime.kernels import missing

    if output is not None:
        check_output(output, *models, *([Path(data)] if data else []))
        results_beside(output, as_json)
    for parameter, value in reading.items():
        if value is not None and data is None:
            option = as_option(parameter)
            raise OnnxShiftError(f"{option}: says how the images of --data are to be read, and there is no --data")
    if layers and (reason := missing()):
        raise OnnxShiftError(f"--layers: there are no sparse kernels to measure ({reason})")
    function = None if evaluate is None else import_named(evaluate, "--evaluate")
    shares = dict(_parse_accuracy(text) for text in accuracy)
    chosen = Settings(**settings, attempts=3, input_shapes=dict(_parse_shape(text) for text in shapes))
    with open_sources(models) as sources:
        paths = [source.path for source in sources]
        check_models(paths, dense, chosen.input_shapes or {}, chosen.providers[0])
        images = None if data is None else labelled_images(data, paths, reading, chosen.providers[0])
        with log.status("measuring ...") as status:
            found = profile(
                sources,
                dense=dense,
                evaluate=function,
                data=images.batches if images else None,
                accuracy=shares,
                settings=chosen,
                date=today(),
                progress=lambda step: status.update(Text(step)),
            )
            choices = {
                source.name: _compiled(source.path, chosen.batches[0], chosen.input_shapes or {}, chosen.threads)
                for source in (sources if layers else ())
            }
    if output is not None:
        found.save(output)
    _show_profile(found, choices, as_json)


def labelled_images(data: str, models: Sequence[Path], reading: Mapping[str, Any], provider: str) -> "Evaluation":
    """Open the images of `data` for `models`, read as the options `reading` say, and remark what is to be known."""
    from onnx_shift.portfolio.evaluation import evaluation

    numbers = {parameter: _numbers(parameter, reading[parameter]) for parameter in ("mean", "std")}
    images = evaluation(data, models, **{**reading, **numbers}, provider=provider)
    if images.note is not None:
        note(f"note: {images.note}")
    return images


def _show_profile(profile: "Profile", choices: Mapping[str, "Choice"], as_json: bool) -> None:
    from onnx_shift.views.kernels import choice_summary, choice_table, missing_lines
    from onnx_shift.views.tables import profile_notes, profile_tables

    if as_json:
        layers = {name: choice_summary(choice)["layers"] for name, choice in choices.items()}
        print_json(profile.to_dict() | ({"layers": layers} if choices else {}))
        return
    for table in (*profile_tables(profile), *(choice_table(choice, name) for name, choice in choices.items())):
        out.print(table)
    print_lines(*profile_notes(profile), *missing_lines())


def _numbers(parameter: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise OnnxShiftError(f"{{{parameter}}}: give numbers separated by commas", **{parameter: text}) from error


def _parse_accuracy(text: str) -> tuple[Path, float]:
    name, _, share = text.rpartition("=")
    try:
        if name:
            return Path(name), float(share)
    except ValueError:
        pass
    raise OnnxShiftError(f"--accuracy {text}: give a file and a share, such as net.onnx=0.91")


def _parse_shape(text: str) -> tuple[str, list[int]]:
    name, _, axes = text.rpartition("=")
    if not name or not all(axis.strip().isdigit() for axis in axes.split(",")):
        raise OnnxShiftError(f"--shape {text}: give an input's name and its axes, such as input=1,3,224,224")
    return name, [int(axis) for axis in axes.split(",")]


def pack_files(
    models: Sequence[Path], output: Path, *, profile: Path | None, metrics: Sequence[str], as_json: bool, **choice: Any
) -> None:
    """Pack `models` into a portfolio, chosen by `profile` where it is given, and show what it holds."""
    from onnx_shift.portfolio.inputs import variant_name
    from onnx_shift.portfolio.pack import pack
    from onnx_shift.portfolio.profile import Profile
    from onnx_shift.portfolio.select import DEFAULT_METRICS
    from onnx_shift.runtime.portfolio import Portfolio
    from onnx_shift.views.portfolio import (
        claim_lines,
        portfolio_summary,
        portfolio_table,
        selection_lines,
        selection_summary,
        size_words,
    )

    check_output(output, *models, *([profile] if profile else []))
    results_beside(output, as_json)
    if metrics and profile is None:
        raise OnnxShiftError(f"--metric {metrics[0]}: nothing was measured to choose by; give --profile as well")
    measured = None if profile is None else Profile.load(profile)
    named = [variant_name(model) for model in models if model.suffix == ".onnx"]  # portfolios are opened only once
    if measured is not None and (
        unknown := [n for n in named if n not in {*measured.variants, *choice.get("without", ())}]
    ):
        raise OnnxShiftError(f"{profile}: does not list {', '.join(unknown)}; profile all models in one run")
    with log.status(Text(f"packing {output} …")), tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
        # What is no plain file cannot be read again to show what it holds.
        written = Path(folder, "portfolio.zip") if is_stream(output) else output
        selection = pack(models, written, profile=measured, metrics=metrics or DEFAULT_METRICS, **choice)
        portfolio, size_bytes = Portfolio.open(written), written.stat().st_size
        if written is not output:
            write_bytes(output, read_bytes(written))
    note(*(f"note: {line}" for line in selection.notes))
    if as_json:
        print_json({**portfolio_summary(portfolio), **selection_summary(selection)})
        return
    out.print(portfolio_table(portfolio))
    note(*(f"left out {name}: {reason}" for name, reason in selection.dropped.items()))
    print_lines(f"{output}: {size_words(portfolio, size_bytes)}", *claim_lines(portfolio))
    print_lines(*selection_lines(selection))


# --- inspect ---------------------------------------------------------------------------------------------------


def inspect_file(file: Path, as_json: bool, *, verify: bool, trusted: Path | None) -> None:
    """Show what a portfolio or a model holds; `verify` tries all of it beforehand."""
    from onnx_shift.runtime.archive import is_archive

    if is_archive(file):
        _inspect_portfolio(file, as_json, verify, trusted)
        return
    if trusted is not None:
        raise OnnxShiftError(f"--trusted {trusted}: {file} is no portfolio, and only portfolios are signed")
    if verify:
        from onnx_shift.ort import CPU
        from onnx_shift.portfolio.sessions import open_session

        open_session(file, [CPU], 1)
    _inspect_model(file, as_json)


def _inspect_portfolio(file: Path, as_json: bool, verify: bool, trusted: Path | None) -> None:
    from onnx_shift.ort import CPU
    from onnx_shift.runtime import ModelSwitcher, Portfolio
    from onnx_shift.runtime.kernels import missing
    from onnx_shift.views.kernels import missing_lines
    from onnx_shift.views.portfolio import (
        claim_lines,
        machine_lines,
        portfolio_summary,
        portfolio_table,
        signature_line,
        signed_lines,
        size_words,
    )

    portfolio = Portfolio.open(file, trusted=trusted)
    if verify:
        with ModelSwitcher(portfolio, providers=[CPU], cache=False) as model:
            model.prepare()
        note(f"{file}: whole, and onnxruntime loads every variant")
    if as_json:
        print_json({**portfolio_summary(portfolio), "signed": portfolio.signed, "kernels_missing": missing()})
        return
    out.print(portfolio_table(portfolio))
    print_lines(f"{size_words(portfolio, file.stat().st_size)}, {signature_line(portfolio)}", *missing_lines())
    print_lines(*signed_lines(portfolio, trusted), *machine_lines(portfolio), *claim_lines(portfolio))


def _inspect_model(file: Path, as_json: bool) -> None:
    from onnx_shift.runtime.kernels import missing
    from onnx_shift.views.kernels import missing_lines
    from onnx_shift.views.model import layer_table, model_lines, model_summary

    summary = model_summary(file)
    if as_json:
        print_json({**summary, "kernels_missing": missing()})
        return
    out.print(layer_table(summary))
    print_lines(*model_lines(summary), *missing_lines())


# --- export, report, demo and replay ---------------------------------------------------------------------------


def export_checkpoint(
    checkpoint: Path, output: Path, *, model: str | None, mask: Path | None, shape: str | None
) -> None:
    """Write `checkpoint`, ours or a third party's weights, to `output` as ONNX."""
    check_output(output, checkpoint, mask or checkpoint.with_name("mask.pth"))
    results_beside(output)
    from onnx_shift.exporter.openlth import export_any, parse_shape

    what = export_any(checkpoint, output, model=model, mask=mask, shape=parse_shape(shape))
    out.print(f"{output}: {what}")


def write_report(source: Path, output: Path) -> None:
    """Write the page on what `source` holds."""
    from onnx_shift.report.evidence import gather_evidence
    from onnx_shift.report.page import render_page

    check_output(output, source, *source.glob("*.json"), *source.glob("*/*.json"))
    results_beside(output)
    write_text(output, render_page(gather_evidence(source)))
    print_lines(f"wrote {output}")


def demonstrate(output: Path, levels: int | None, as_json: bool) -> None:
    """Run the demo below `output` and show what it found."""
    from onnx_shift.demo import demo_lines, run_demo
    from onnx_shift.portfolio.profile import Profile
    from onnx_shift.views.tables import demo_table

    figures = run_demo(output, log, date=today(), levels=levels)
    if as_json:
        print_json(figures)
        return
    out.print(demo_table(Profile.from_dict(figures["profile"]), figures["dropped"]))
    print_lines(*demo_lines(figures, output))


def replay_portfolio(
    portfolio: Path, trace: str, output: Path | None, *, load: float | None, cv: float | None, policy: str,
    duration: float, threads: int, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Serve `trace` from `portfolio` and show or write the time line; `options` are those of `replay`."""
    from onnx_shift.portfolio.sessions import session_options
    from onnx_shift.replaying import replay_trace, timeline_table
    from onnx_shift.runtime.policies import policy_maker
    from onnx_shift.runtime.portfolio import Portfolio
    from onnx_shift.runtime.replay import replay
    from onnx_shift.views.timeline import moment_line

    if output is not None:
        check_folder(output, ("replay.json", "replay.png"), portfolio, Path(trace))
    opened, make_policy = Portfolio.open(portfolio), policy_maker(policy)
    shape = replay_trace(trace, duration, load=load, cv=cv, seed=options["seed"])
    if len(opened) == 1:
        raise OnnxShiftError(f"{portfolio}: holds one variant, so there is nothing to switch; pack several")
    with log.status("timing the variants …") as status:
        found = replay(
            opened,
            shape,
            make_policy=make_policy,
            sess_options=session_options(threads),
            progress=lambda moment: status.update(Text(moment_line(moment))),
            **options,
        )
    if output is not None:
        _write_timeline(found, output)
    if as_json:
        print_json(found.to_dict())
    else:
        out.print(timeline_table(found))


def _write_timeline(found: "Timeline", folder: Path) -> None:
    from onnx_shift.views.timeline import can_draw, write_timeline_png

    make_folder(folder)
    write_text(folder / "replay.json", json.dumps(found.to_dict(), indent=1) + "\n")
    note(f"wrote {folder / 'replay.json'}")
    if can_draw():
        write_timeline_png(found, folder / "replay.png")
        note(f"wrote {folder / 'replay.png'}")
    else:
        note("replay.png is left out: it needs pip install 'onnx-shift[report]'")
