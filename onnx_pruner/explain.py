"""Why a channel stayed although it is constant or nothing reads it."""

import numpy as np

from onnx_shift.onnx_pruner.analysis import FREE, NEEDED, Analysis
from onnx_shift.onnx_pruner.plan import Plan
from onnx_shift.onnx_pruner.report import Kept


def kept_although_free(analysis: Analysis, plan: Plan) -> tuple[Kept, ...]:
    """For each layer's output: channels that are constant or dead and stayed, grouped by reason."""
    count = int(analysis.classes.max(initial=-1)) + 1
    witness = np.full(count, -1)  # of each class, the number of a channel that is needed
    needed = np.nonzero(analysis.need == NEEDED)[0]
    witness[analysis.classes[needed]] = needed
    names = list(analysis.channels)
    starts = np.asarray([analysis.first[name] for name in names])
    tensors = np.searchsorted(starts, witness, side="right") - 1
    readers = analysis.reader[witness]
    found = []
    for number, (op, effect) in enumerate(zip(analysis.ops, analysis.effects, strict=True)):
        name = op.output
        if effect.linear is None or name not in analysis.channels or number in analysis.dead:
            continue
        numbers = analysis.numbers(name)
        free = analysis.channels[name].constant | (analysis.need[numbers] == FREE)
        reasons: dict[str, list[int]] = {}
        channels = np.nonzero(free & plan.keep[name])[0]
        groups = analysis.classes[numbers][channels]
        known: dict[tuple[int, int], str] = {}
        for channel, group, key in zip(
            channels.tolist(),
            groups.tolist(),
            zip(tensors[groups].tolist(), readers[groups].tolist(), strict=True),
            strict=True,
        ):
            if key not in known:
                known[key] = "needed" if key[0] < 0 else _reason(analysis, names[key[0]], key[1], name)
            reasons.setdefault(plan.held_back.get(group) or known[key], []).append(channel)
        found += [Kept(name, tuple(channels), reason) for reason, channels in reasons.items()]
    return tuple(found)


def _reason(analysis: Analysis, tensor: str, reader: int, own: str) -> str:
    tied = "" if tensor == own else f"tied to {tensor!r}, "
    if reader == -2:
        return f"{tied}a graph output" if tied else "it is a graph output"
    if reader == -3:
        return f"{tied}read by the body of an If, Loop or Scan"
    if reader < 0:
        return f"{tied}joined from a tensor whose channels cannot be told apart"
    op = analysis.ops[reader]
    why = analysis.reasons.get((reader, tensor))
    node = op.node.name or op.output
    return f"{tied}read by {op.type} {node!r}" + (f" ({why})" if why else "")
