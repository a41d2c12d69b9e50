"""Which alignment of channel counts makes a pruned model fastest: measured on this machine."""

import os
from dataclasses import replace
from functools import partial

import onnx

from onnx_shift.onnx_pruner.prune import PruneResult, finish, open_source, prune_opened
from onnx_shift.onnx_pruner.target import Fit
from onnx_shift.ort import CPU
from onnx_shift.portfolio.latency import compare_latency
from onnx_shift.portfolio.sessions import open_session, random_inputs

ALIGNMENTS = (1, 4, 8, 16)
_AS_FAST = 1.02  # times the time of the fastest: of these the smallest model is taken


def prune_fastest(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    verify: bool = True,
    sparse_initializers: bool = False,
    seconds: float = 1.0,
    threads: int = 1,
) -> PruneResult:
    """Prune with each of `ALIGNMENTS` and return the result that answers fastest here, the smallest of equals.

    Random inputs of one image are timed on the CPU in interleaved rounds, `seconds` for each. A note of the report says
    what was measured. Raises PruneError as `prune` does, SessionError where an input's free axis leaves it open what to
    feed.
    """
    opened = open_source(model)
    found = {align: prune_opened(opened, Fit(align)) for align in ALIGNMENTS}
    different = {result.report.parameters_after: align for align, result in reversed(found.items())}
    sessions = {
        str(align): open_session(found[align].model.SerializeToString(), [CPU], threads) for align in different.values()
    }
    calls = {name: partial(session.run, None, random_inputs(session, 1, seed=0)) for name, session in sessions.items()}
    compared = compare_latency(calls, next(iter(calls)), seconds=seconds)
    times = {name: latency.p50_ms for name, latency in compared.latency.items()}
    close = [int(name) for name, time_ms in times.items() if time_ms <= _AS_FAST * min(times.values())]
    chosen = min(close, key=lambda align: found[align].report.parameters_after)
    result = finish(opened, found[chosen], verify=verify, sparse_initializers=sparse_initializers)
    shown = ", ".join(
        f"{name}: {time_ms:.3g} ms" for name, time_ms in sorted(times.items(), key=lambda row: int(row[0]))
    )
    note = f"--align {chosen} is fastest here, or the smallest of those as fast ({shown})"
    return replace(result, report=replace(result.report, notes=(*result.report.notes, note)))
