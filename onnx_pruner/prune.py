"""`prune`: read, fold BatchNormalization, analyse, plan, apply, verify, report."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnx_shift import files
from onnx_shift.claims import is_stale, renew_claim
from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner.analysis import FREE, Analysis, analyse, lost_folds, with_shared_weights_tied
from onnx_shift.onnx_pruner.apply import apply
from onnx_shift.onnx_pruner.bodies import joined, with_pruned_bodies
from onnx_shift.onnx_pruner.counting import layer_changes, parameter_count, planned_parameters, total_macs
from onnx_shift.onnx_pruner.explain import kept_although_free, layers_left_out, scattered_zeros
from onnx_shift.onnx_pruner.fuse import fuse
from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.contrib import BLOCKED
from onnx_shift.onnx_pruner.graph.network import foreign_operators, open_network, opset_of
from onnx_shift.onnx_pruner.graph.opset import with_known_opset
from onnx_shift.onnx_pruner.graph.reading import LoadedModel, PruneError, read_model
from onnx_shift.onnx_pruner.graph.sparse import dense_bytes, with_dense_weights, with_sparse_weights
from onnx_shift.onnx_pruner.narrowing import with_narrow_layers
from onnx_shift.onnx_pruner.op import Mask
from onnx_shift.onnx_pruner.plan import Plan, make_plan
from onnx_shift.onnx_pruner.report import PruneReport
from onnx_shift.onnx_pruner.target import Fit, fit_of
from onnx_shift.onnx_pruner.write import build_model, write_model
from onnx_shift.version import __version__

_KEEPS_ALL = 1 << 30  # no layer has as many channels, so this alignment removes none


@dataclass(frozen=True, repr=False)
class PruneResult:
    """A pruned model and the report on it. With nothing to do, the model is the very one that was read."""

    model: onnx.ModelProto
    report: PruneReport
    source: Path | None = None  # the file that it was read from
    unread: frozenset[str] = frozenset()  # tensors of which some channels may hold anything, since nothing reads them

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, atomically; with nothing to do, a byte-identical copy of the file it came from.

        A model of 2 GB or more is written with its weights in `<path>.data` beside it. Raises OnnxShiftError for the
        file that was read, which is never overwritten.
        """
        target = Path(path)
        if self.source is not None:
            files.check_output(target, self.source)
        if self.report.unchanged and self.source is not None and not self.report.external_data:
            files.write_bytes(target, files.read_bytes(self.source))
        else:
            write_model(self.model, target, self.report.bytes_after)

    def summary(self) -> str:
        """What was removed, in a few lines."""
        return self.report.summary()

    def __repr__(self) -> str:
        return f"PruneResult({self.summary().splitlines()[0]})"


def prune(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    align: int | None = None,
    target: str = "this",
    verify: bool = True,
    sparse_initializers: bool = False,
    sparse_kernels: bool = False,
) -> PruneResult:
    """Remove every channel that is constant or that nothing depends on; the outputs stay equal on every input.

    `model` is a path or a ModelProto, and is never edited. Channel counts at convolutions stay multiples of `align`
    (1: smallest model; by default such as pay on the processor `target`, see `target.fit_of`); with `sparse_kernels`
    not at layers that are mostly zero, which ModelSwitcher and compiled models run on our kernels. With `verify`,
    onnxruntime runs both models, and a difference raises PruneError; so does a model that is not sound. Sparse tensors
    become dense; with `sparse_initializers` every weight that is smaller so is written as one. The paper's model pruner
    makes one pass over zero filters; `analysis` repeats until nothing changes.
    """
    fit = replace(fit_of(target) if align is None else Fit(align), sparse_kernels=sparse_kernels)
    if fit.align < 1:
        raise PruneError("{align}: must be 1 or more", align=align)
    opened = open_source(model, lazily=not sparse_initializers)
    return finish(opened, prune_opened(opened, fit), verify=verify, sparse_initializers=sparse_initializers)


@dataclass(frozen=True)
class OpenedSource:
    """A model as it was read, and as it is pruned: sparse tensors made dense, of `spread` bytes, and a known opset."""

    read: LoadedModel
    dense: LoadedModel
    source: LoadedModel
    spread: int
    clock: "_Clock"


def open_source(model: str | os.PathLike[str] | onnx.ModelProto, *, lazily: bool = False) -> OpenedSource:
    """Read a model to prune; `lazily` leaves external weights in their file. Raises PruneError."""
    clock = _Clock()
    with clock("read"):
        read = read_model(model, lazily=lazily)
        dense = replace(read, model=with_dense_weights(read.model, read.name))
        spread = 0 if dense.model is read.model else dense_bytes(read.model)
        return OpenedSource(read, dense, with_known_opset(dense), spread, clock)


def prune_opened(opened: OpenedSource, fit: Fit) -> PruneResult:
    """Prune to the channel counts that `fit` asks for; `finish` completes the result. Raises PruneError."""
    with _defects_named(opened):
        return _prune_whole(opened.source, fit, opened.clock, opened.spread)


def finish(
    opened: OpenedSource, result: PruneResult, *, verify: bool, sparse_initializers: bool = False
) -> PruneResult:
    """Complete a result of `prune_opened`: verified, weights sparse if asked, notes and times of all steps."""
    read, source, clock = opened.read, opened.source, opened.clock
    with _defects_named(opened):
        if sparse_initializers and not (result.report.unchanged and opened.spread):
            result = _with_sparse_weights(result)
        if verify:
            with clock("verify"):
                result = replace(result, report=_verified(source, result))
            if not result.report.unchanged and not is_stale(source.complete()):  # its accuracy holds on
                renew_claim(result.model)
    if result.report.unchanged:
        result = replace(result, model=read.complete())
    elif source is not opened.dense:
        was, now = (opset_of(one.model, one.name) for one in (read, source))
        note = f"opset {was} was converted to {now} by onnx's own converter"
        note += ": verified against what that wrote" if verify else ""
        result = replace(result, report=replace(result.report, notes=(*result.report.notes, note)))
    return replace(result, report=replace(result.report, seconds=dict(clock.seconds)))


@contextmanager
def _defects_named(opened: OpenedSource) -> Iterator[None]:
    """Let an error that we did not foresee be told as such."""
    try:
        yield
    except OnnxShiftError:
        raise
    except Exception as error:
        name, reason = opened.source.name, f"{type(error).__name__}: {error}"
        raise PruneError(f"{name}: cannot be pruned; this is a defect of onnx-shift ({reason})") from error


def fold_batch_norm(model: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with BatchNormalization folded into the layers before it, every channel kept.

    What every runtime does for free: the fair dense model to compare with. Raises PruneError as `prune` does.
    """
    return prune(model, align=_KEEPS_ALL, verify=False).model


def _prune_whole(source: LoadedModel, fit: Fit, clock: "_Clock", spread: int = 0) -> PruneResult:
    """Bodies first, then the graph around them; without the bodies where they would need too many copies of weights."""
    before = parameter_count(source.model)

    def prune_body(body: LoadedModel) -> tuple[onnx.ModelProto, PruneReport]:
        result = _prune_whole(body, fit, clock)
        return result.model, result.report

    whole, inner = with_pruned_bodies(source, prune_body)
    result = _prune_around(whole, fit, clock, spread)
    result = replace(result, report=replace(joined(result.report, inner), parameters_before=before))
    if whole.touched and _has_grown(result.report, spread):
        return _prune_around(source, fit, clock, spread)
    return result


def _prune_around(source: LoadedModel, fit: Fit, clock: "_Clock", spread: int) -> PruneResult:
    result, copied = _prune(source, fit, clock, sever=True)
    if _has_grown(result.report, spread):
        result, copied = _prune(source, fit, clock, sever=False)
    if _has_grown(result.report, spread):
        result, _ = _prune(source, fit, clock, sever=False, whole=copied)
    return result


def _prune(
    source: LoadedModel,
    fit: Fit,
    clock: "_Clock",
    *,
    sever: bool,
    leave: frozenset[str] = frozenset(),
    whole: frozenset[str] = frozenset(),
) -> tuple[PruneResult, frozenset[str]]:
    """One run from the model as read to the new one, and constants that stay beside what was cut out of them.

    `sever`: replace constant branches by their values; `leave`: outputs of BatchNormalizations that stay; `whole`:
    constants that nothing is cut out of.
    """
    with clock("open"):
        network = open_network(source)
        constants = Constants(network)
        nodes_before = len(network.graph.nodes)
    with clock("fold"):
        fused = fuse(network, constants, leave)
    with clock("analyse"):
        analysis = analyse(network, constants, fused, sever=sever, whole=whole)
        network.mapped.release()
    if lost := lost_folds(analysis, fused):
        return _prune(source, fit, clock, sever=sever, leave=leave | lost, whole=whole)
    with clock("plan"):
        analysis, plan = _best_plan(analysis, fit)
        smallest = plan if fit.align == 1 else _best_plan(analysis, Fit(1))[1]
        plan = with_narrow_layers(analysis, plan, fit)
    with clock("apply"):
        weights = apply(network, constants, analysis, plan, fused)
    alive = {t.name for node in network.graph.nodes for t in node.outputs}
    shrunk = len(network.graph.nodes) < nodes_before
    unchanged = not (plan.cuts_anything or fused.batch_norms or weights.written or shrunk or source.touched)
    with clock("write"):
        resized = {
            name: (analysis.channels[name].axis, int(mask.sum())) for name, mask in plan.keep.items() if not mask.all()
        }
        pruned, size_bytes = source.model, network.size_bytes
        if not unchanged:
            pruned, size_bytes = build_model(network, weights, resized)
    with clock("count"):
        layers = layer_changes(analysis, plan, alive)
        after = parameter_count(pruned)
        before = parameter_count(source.model)
        spare = planned_parameters(analysis, plan, alive) - planned_parameters(analysis, smallest, alive)
        scattered = scattered_zeros(analysis, plan, (after - spare) / max(before, 1))
        report = PruneReport(
            source=source.name,
            align=fit.align,
            unchanged=unchanged,
            layers=layers,
            parameters_before=before,
            parameters_after=after,
            parameters_after_align_1=after - spare,
            macs_before=total_macs(layers, after=False),
            macs_after=total_macs(layers, after=True),
            bytes_before=source.file_bytes or network.size_bytes,
            bytes_after=(source.file_bytes or size_bytes) if unchanged else size_bytes,
            batch_norms_fused=len(fused.batch_norms),
            channels_before=sum(len(mask) for mask in _layer_outputs(analysis, plan)),
            channels_removed=sum(int((~mask).sum()) for mask in _layer_outputs(analysis, plan)),
            nodes_before=nodes_before - sum(one.more_nodes for one in network.apart),
            nodes_after=len(pruned.graph.node),
            external_data=source.external_data,
            narrowed=tuple(op.node.name or op.output for op in analysis.ops if op.output in plan.narrow),
            kept=kept_although_free(analysis, plan),
            left_out=layers_left_out(source.model, analysis, constants, source.looked_at),
            notes=(*_notes(source, pruned), *([scattered] if scattered else [])),
        )
        if not unchanged:
            _record(pruned, source, report)
    path = None if source.sha256 is None else Path(source.name)
    unread = frozenset(
        name for name, mask in plan.keep.items() if ((analysis.need[analysis.numbers(name)] == FREE) & mask).any()
    )
    return PruneResult(pruned, report, path, unread), frozenset(weights.copied)


def _has_grown(report: PruneReport, spread: int) -> bool:
    """Whether a model has more weights than before, or larger ones; what the pruner notes in it does not count, nor the
    `spread` bytes that sparse tensors take once they are dense.
    """
    more = report.parameters_after > report.parameters_before
    return more or report.bytes_after > 1.02 * report.bytes_before + spread + 4096


def _with_sparse_weights(result: PruneResult) -> PruneResult:
    model = with_sparse_weights(result.model)
    if model is result.model:
        return result
    saved = dense_bytes(model) - sum(tensor.ByteSize() for tensor in model.graph.sparse_initializer)
    report = replace(result.report, unchanged=False, bytes_after=result.report.bytes_after - saved)
    return replace(result, model=model, report=report)


def _best_plan(analysis: Analysis, fit: Fit) -> tuple[Analysis, Plan]:
    """The plan that leaves fewer parameters: each layer for itself, or those that share a weight alike."""
    plan = make_plan(analysis, fit)
    tied = with_shared_weights_tied(analysis)
    if tied is None:
        return analysis, plan
    other = make_plan(tied, fit)
    apart, alike = planned_parameters(analysis, plan), planned_parameters(tied, other)
    return (tied, other) if alike < apart else (analysis, plan)


class _Clock:
    """Seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def _layer_outputs(analysis: Analysis, plan: Plan) -> list[Mask]:
    """Which outputs of each layer with weights stay."""
    pairs = zip(analysis.ops, analysis.effects, strict=True)
    return [plan.keep[op.output] for op, effect in pairs if effect.linear is not None]


_IN_INTEGERS = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"})


def _notes(source: LoadedModel, pruned: onnx.ModelProto) -> tuple[str, ...]:
    notes = []
    weights = {t.name for t in source.model.graph.initializer}
    left = {info.name for info in source.model.graph.input} - {info.name for info in pruned.graph.input}
    if moved := sorted(left & weights):
        names = ", ".join(moved[:3]) + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
        notes.append(f"weights that were also listed as graph inputs and changed are no longer inputs: {names}")
    if kinds := sorted({node.op_type for node in source.model.graph.node} & _IN_INTEGERS):
        notes.append(
            f"layers that compute in integers ({', '.join(kinds)}) stay as they are: only quantised models in the "
            "QuantizeLinear–DequantizeLinear form are pruned"
        )
    if kinds := sorted({node.op_type for node in source.model.graph.node if node.domain == BLOCKED}):
        notes.append(
            f"layers that onnxruntime's optimiser laid out in blocks ({', '.join(kinds)}) stay as they are: prune the "
            "model before optimising it"
        )
    return tuple(notes)


def _record(pruned: onnx.ModelProto, source: LoadedModel, report: PruneReport) -> None:
    """Provenance as metadata; what the model already carries stays."""
    removed = {
        "channels": report.channels_removed,
        "parameters": report.parameters_before - report.parameters_after,
        "batch_norms_fused": report.batch_norms_fused,
        "align": report.align,
    }
    entries = {"onnx_shift.version": __version__, "onnx_shift.removed": json.dumps(removed)}
    if source.sha256:
        entries["onnx_shift.source_sha256"] = source.sha256
    for entry in pruned.metadata_props:
        if entry.key in entries:
            entry.value = entries.pop(entry.key)
    for key, value in entries.items():
        pruned.metadata_props.add(key=key, value=value)


def _verified(source: LoadedModel, result: PruneResult) -> PruneReport:
    """Compare outputs; raises PruneError when they differ."""
    from onnx_shift.onnx_pruner.verification.compare import VerificationError, compare
    from onnx_shift.onnx_pruner.verification.engines import Source

    folder = Path(source.name).parent if source.mapped.arrays else None
    original = Source("the original model", source.model, None, folder)
    try:
        outcome = compare(original, result.model, unread=result.unread)
    except VerificationError as error:
        foreign = ", ".join(foreign_operators(source.model)[:3])
        around = f"leaves that out, and prunes around {foreign}" if foreign else "leaves that out"
        raise PruneError(f"{source.name}: cannot be verified ({{verify}} {around}): {error}", verify=False) from error
    if not outcome.equal:
        detail = f"largest difference {outcome.largest_difference:.1e} of the output scale"
        reason = outcome.reason or f"{detail}, tolerance {outcome.tolerance:.1e}"
        raise PruneError(
            f"{source.name}: the pruned model would not give the same outputs, nothing is written ({reason})"
        )
    notes = (*result.report.notes, *outcome.notes)
    return replace(result.report, verified=True, largest_difference=outcome.largest_difference, notes=notes)
