"""The commands that make models of models, `prune` and `quantize`: where they write, and what they tell."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from onnx_shift.commands import labelled_images
from onnx_shift.console import log, note, out, print_json, print_lines, results_beside
from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import atomic_path, check_folder, check_output, make_folder, write_text
from onnx_shift.views.tables import plain_table, show_bytes, show_share

if TYPE_CHECKING:
    from onnx_shift.onnx_pruner.prune import PruneResult
    from onnx_shift.portfolio.quantize import Quantised


def targets(models: Sequence[Path], output: Path | None, suffix: str, as_json: bool = False) -> dict[Path, Path]:
    """Return where each model's result is written: `output`, in the folder `output`, or beside the model.

    `suffix` takes the place of `.onnx` or `.pruned.onnx`. Raises OnnxShiftError for a model that is a folder, and where
    two results would be one file.
    """
    for model in models:
        if model.is_dir():
            raise OnnxShiftError(f"{model}: is a folder, not an ONNX model")
    if output is not None and not output.is_dir() and len(models) == 1:
        check_output(output, *models)
        results_beside(output, as_json)
        return {models[0]: output}
    if output is not None:
        check_folder(output)
    found: dict[Path, Path] = {}
    for model in models:
        target = (output or model.parent) / f"{model.stem.removesuffix('.pruned')}{suffix}"
        if target == model:
            target = model.with_name(f"{model.stem}{suffix}")
        if target in found.values():
            raise OnnxShiftError(f"{model}: a second result would be {target}; name the files apart")
        if output is None or output.is_dir():
            check_output(target, *models)
        found[model] = target
    return found


def make_folders(written: Mapping[Path, Path], output: Path | None) -> None:
    """Make the folder `output` of several results."""
    if output is not None and output not in written.values():
        make_folder(output)


def prune_files(
    models: Sequence[Path],
    output: Path | None,
    *,
    align: str | None,
    target: str,
    sparse_kernels: bool,
    report: Path | None,
    explain: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Prune `models` and show what changed, after a check of all files to write. `options` are those of `prune`."""
    from onnx_shift.views.prune import show

    written = targets(models, output, ".pruned.onnx", as_json)
    if report is not None:
        check_output(report, *written, *written.values())
        results_beside(report, as_json)
    prune_one = _pruning(align, target, sparse_kernels)
    make_folders(written, output)
    reports: dict[str, dict[str, Any]] = {}
    for model, path in written.items():
        with log.status(Text(f"pruning {model} …")):
            result = prune_one(model, **options)
        result.save(path)
        reports[str(path)] = result.report.to_dict()
        if not as_json and not quiet:
            show(result.report, path, out, explain)
    if report is not None:
        content = reports if len(models) > 1 else next(iter(reports.values()))
        write_text(report, json.dumps(content, indent=2) + "\n")
    if as_json:
        print_json(reports)


_GAIN = 1.05  # a speed-up below it is none


def gain_lines(run: Mapping[str, Any]) -> list[str]:
    """What to say of a finished training whose sparsest level, pruned, is not faster here: which command helps."""
    from onnx_shift.onnx_pruner.prune import fold_batch_norm, prune
    from onnx_shift.ort import CPU
    from onnx_shift.portfolio.latency import compare_latency
    from onnx_shift.portfolio.sessions import open_session, random_inputs

    sparsest = run["levels"][-1]
    if sparsest["level"] == 0:
        return []
    try:
        models = {"dense": fold_batch_norm(sparsest["onnx"]), "pruned": prune(sparsest["onnx"]).model}
        sessions = {name: open_session(model.SerializeToString(), [CPU], 1) for name, model in models.items()}
        calls = {name: partial(session.run, None, random_inputs(session, 1, 0)) for name, session in sessions.items()}
        gain = compare_latency(calls, "dense", seconds=0.5).speedup["pruned"].median
    except OnnxShiftError:  # a hint: the training is done, whatever it cannot measure
        return []
    if gain >= _GAIN:
        return []
    return [
        f"{sparsest['onnx']}: pruned, it is {gain:.2f} times as fast here: few of its channels are empty. The same "
        "command with --method refill and another -o empties whole channels; onnx-shift compile "
        f"{sparsest['onnx']} -o fast.onnx runs its layers sparse where that is faster"
    ]


def _pruning(align: str | None, target: str, sparse_kernels: bool) -> "Callable[..., PruneResult]":
    """Return what prunes: with the alignment of the target, the one given, or the one that is fastest here."""
    from onnx_shift.onnx_pruner.prune import prune
    from onnx_shift.portfolio.alignment import prune_fastest

    if align == "auto" and sparse_kernels:
        raise OnnxShiftError("--align auto measures plain onnxruntime: leave --sparse-kernels out")
    if align == "auto":
        return prune_fastest
    if align is not None and not align.isdigit():
        raise OnnxShiftError(f"--align {align}: give a number from 1 on, or auto")
    fixed = None if align is None else int(align)
    return partial(prune, align=fixed, target=target, sparse_kernels=sparse_kernels)


def quantize_files(
    models: Sequence[Path],
    output: Path | None,
    *,
    data: str,
    reading: Mapping[str, Any],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Quantise `models` and show what each keeps; `options` are those of `portfolio.quantize.quantize`."""
    import onnx

    from onnx_shift.ort import CPU
    from onnx_shift.portfolio.quantize import quantize

    written = targets(models, output, ".int8.onnx", as_json)
    images = labelled_images(data, models, reading, CPU)
    make_folders(written, output)
    results: dict[Path, Quantised] = {}
    for model, target in written.items():
        with log.status(Text(f"quantising {model} …")):
            results[model] = quantize(model, images.training[model](), images.batches[model](), **options)
        with atomic_path(target) as temporary:
            onnx.save(results[model].model, temporary)
    if as_json:
        print_json({str(written[model]): found.to_dict() for model, found in results.items()})
    elif not quiet:
        out.print(_table(results))
        print_lines(f"on {next(iter(results.values())).check.images:,} test images of {data}")
    for model, found in results.items() if not quiet else ():
        if found.mended_filters:
            note(f"note: {model}: {found.mended_filters} filters without weights got the scale of the others")
        note(f"wrote {written[model]}")


def _table(results: "Mapping[Path, Quantised]") -> Table:
    table = plain_table("model")
    for heading in ("float", "int8", "same class", "difference", "float size", "int8 size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model, found in results.items():
        shares = (found.check.accuracy_float, found.check.accuracy_int8, found.check.agreement)
        sizes = (show_bytes(found.bytes_before), show_bytes(found.bytes_after))
        table.add_row(model.name, *map(show_share, shares), f"{found.check.largest_difference:.1e}", *sizes)
    return table
