"""Why a channel stayed although it is constant or unread; layers that were not looked at; zeros that stay."""

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx

from onnx_shift.onnx_pruner.analysis import FREE, NEEDED, Analysis
from onnx_shift.onnx_pruner.counting import kept_channels
from onnx_shift.onnx_pruner.effect import Linear
from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.weighted import INTEGER_LAYERS, Weighted, weighted_layers
from onnx_shift.onnx_pruner.layers import is_uniform, part
from onnx_shift.onnx_pruner.op import Op
from onnx_shift.onnx_pruner.plan import Plan
from onnx_shift.onnx_pruner.report import Kept, LeftOut

_MANY_ZEROS = 0.5  # share of the weights that stay: from there on scattered zeros are told about
_SOME_ZEROS = 0.1  # of those of the largest layer: with fewer the others are not looked at
#: Removal gains little where more than this share of the parameters stays, of channels of which few are empty.
_LITTLE_GAIN, _FEW_EMPTY = 0.9, 0.1
_SAMPLE = 32  # outputs of each layer


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


def layers_left_out(
    model: onnx.ModelProto, analysis: Analysis, constants: Constants, elsewhere: frozenset[str] = frozenset()
) -> tuple[LeftOut, ...]:
    """The layers with weights that the analysis knows nothing of, by the reason; those of constants are none, nor those
    whose weights were looked at `elsewhere`.
    """
    seen = {*_weights_looked_at(analysis), *elsewhere}
    found: dict[str, list[Weighted]] = {}
    for layer in weighted_layers(model.graph):
        computed = layer.body or not constants.is_constant(layer.node.output[0])
        if computed and layer.name not in seen:
            found.setdefault(_why_left_out(layer), []).append(layer)
    return tuple(
        LeftOut(
            tuple(layer.node.name or layer.node.output[0] for layer in layers),
            sum(layer.parameters for layer in {layer.name: layer for layer in layers}.values()),
            reason,
        )
        for reason, layers in found.items()
    )


def _weights_looked_at(analysis: Analysis) -> Iterator[str]:
    """Names of the weights of layers that were looked at, and of all that they are computed from."""
    for op, effect in zip(analysis.ops, analysis.effects, strict=True):
        whole = effect.reads or effect.feeds is not None or effect.together is not None
        read = op.inputs if whole else [] if effect.linear is None else [effect.linear.weight]
        for index in read:
            if op.has(index) and op.constants.is_constant(op.name(index)):
                yield from _sources(op.constants, op.name(index))


def _sources(constants: Constants, name: str) -> Iterator[str]:
    waiting = [name]
    while waiting:
        name = waiting.pop()
        yield name
        node = constants.producers.get(name)
        waiting += [tensor.name for tensor in node.inputs if tensor.name] if node is not None else []


def _why_left_out(layer: Weighted) -> str:
    node = layer.node
    if layer.body:
        return f"in the body of {layer.body}"
    if layer.foreign:
        return f"{node.op_type} is of the domain {node.domain!r}, not of the standard"
    if layer.sparse:
        return f"the weight of {node.op_type} is stored as a sparse tensor"
    if node.op_type in INTEGER_LAYERS:
        return f"{node.op_type} computes in integers"
    return f"{node.op_type} with a weight that no rule takes channels from"


def scattered_zeros(analysis: Analysis, plan: Plan, left: float) -> str:
    """What to say when most weights that stay are zero; an empty string otherwise. `left`: the share of the parameters
    that removal leaves.
    """
    layers = [
        (op, effect.linear)
        for number, (op, effect) in enumerate(zip(analysis.ops, analysis.effects, strict=True))
        if effect.linear is not None and effect.linear.plain_weight  # in integers nothing runs sparse
        and number not in analysis.dead and plan.keep[op.output].any()
    ]  # fmt: skip
    share = 0.0
    largest = sorted(layers, key=lambda layer: -layer[1].kernel.size)[:1]
    # Dense weights are not read once more; a few empty kernels among them are told by the largest layer.
    for count, counted in ((_likely_zeros, layers), (_zeros, largest), (_zeros, layers)):
        weights, zeros = np.sum([count(op, linear, plan) for op, linear in counted] or [(0, 0)], axis=0)
        share = zeros / max(weights, 1)
        if share < (_MANY_ZEROS if counted is layers else _SOME_ZEROS):
            return ""
    outputs = [linear.kernel.any(axis=2) for _, linear in layers]
    channels = sum(found.size for found in outputs)
    empty = channels - sum(np.count_nonzero(found) for found in outputs)
    if left > _LITTLE_GAIN and empty > _FEW_EMPTY * channels:
        return ""
    told = (
        f"{share:.0%} of the weights are zero, {empty:,} of {channels:,} channels are empty: removal gains little"
        if left > _LITTLE_GAIN
        else f"{share:.0%} of the weights that stay are zero, scattered where removal takes nothing"
    )
    return f"{told}; served by ModelSwitcher or compiled, these layers run sparse: `onnx-shift profile` measures it"


def _likely_zeros(op: Op, linear: Linear, plan: Plan) -> tuple[float, float]:
    """How many weights of a layer stay, and how many are zero to judge by how many kernels hold nothing else."""
    keep_in, keep_out = (np.nonzero(keep)[0] for keep in kept_channels(op, linear, plan))
    taps = prod(op.constants.shape(op.name(linear.weight))) / linear.kernel.size
    weights = len(keep_in) * len(keep_out) / linear.groups * taps
    some = keep_out[:: len(keep_out) // _SAMPLE + 1]
    kernel = linear.kernel[0][some][:, keep_in] if linear.groups == 1 else linear.kernel
    empty = 1 - np.count_nonzero(kernel) / max(kernel.size, 1)
    return weights, weights * empty ** (1 / taps)


def _zeros(op: Op, linear: Linear, plan: Plan) -> tuple[float, float]:
    """The same, counted."""
    weight = op.constant(linear.weight)
    assert weight is not None
    if is_uniform(weight):
        return 0, 0  # it takes no memory
    kept = part(linear, linear.view(weight), *kept_channels(op, linear, plan))
    return kept.size, kept.size - int(np.count_nonzero(kept != 0))
