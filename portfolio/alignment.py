"""Which alignment of channel counts makes a pruned model fastest: measured on this machine."""

import os
from dataclasses import replace
from functools import partial

import onnx

from onnx_shift.onnx_pruner.prune import PruneResult, finish, open_source, prune_opened
from onnx_shift.onnx_pruner.target import Fit, fit_of
from onnx_shift.ort import CPU
from onnx_shift.portfolio.latency import compare_latency
from onnx_shift.portfolio.sessions import open_session, random_inputs

ALIGNMENTS = (1, 4, 8, 16)
_DEFAULT = "default"  # what the processor's table says layer by layer
_AS_FAST = 1.02  # times the time of the fastest: of these the smallest model is taken


def prune_fastest(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    verify: bool = True,
    sparse_initializers: bool = False,
    seconds: float = 1.0,
    threads: int = 1,
) -> PruneResult:
    """Prune with each of `ALIGNMENTS` and by default, and return the result that answers fastest here, the smallest of
    equals.

    Random inputs of one image are timed on the CPU in interleaved rounds, `seconds` for each. A note of the report says
    what was measured. Raises PruneError as `prune` does, SessionError where an input's free axis leaves it open what to
    feed.
    """
    opened = open_source(model)
    fits = {str(align): Fit(align) for align in ALIGNMENTS} | {_DEFAULT: fit_of("this")}
    found = {name: prune_opened(opened, fit) for name, fit in fits.items()}
    different = {result.report.parameters_after: name for name, result in reversed(found.items())}
    tried = [name for name in found if name in different.values()]
    sessions = {name: open_session(found[name].model.SerializeToString(), [CPU], threads) for name in tried}
    calls = {name: partial(session.run, None, random_inputs(session, 1, seed=0)) for name, session in sessions.items()}
    compared = compare_latency(calls, tried[0], seconds=seconds)
    times = {name: latency.p50_ms for name, latency in compared.latency.items()}
    close = [name for name, time_ms in times.items() if time_ms <= _AS_FAST * min(times.values())]
    chosen = min(close, key=lambda name: found[name].report.parameters_after)
    result = finish(opened, found[chosen], verify=verify, sparse_initializers=sparse_initializers)
    shown = ", ".join(f"{name}: {times[name]:.3g} ms" for name in tried)
    what = "the default alignment" if chosen == _DEFAULT else f"--align {chosen}"
    note = f"{what} is fastest here, or the smallest of those as fast ({shown})"
    return replace(result, report=replace(result.report, notes=(*result.report.notes, note)))
