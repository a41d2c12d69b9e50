"""The two facts of each channel, to a fixed point: constant (forward) and needed (backward), and its ties.

Think of sparse conditional constant propagation with dead-code elimination (Wegman & Zadeck 1991), a channel in
the role of a variable. The graph has no cycles, so one sweep each way reaches the fixed point.

What the plan may rely on, and what `apply` keeps true:
- a constant channel that stays still has its value;
- a needed channel that stays still has its value;
- a channel that is neither may hold anything finite.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_shift.onnx_pruner.effect import Effect, Linear, pin_all
from onnx_shift.onnx_pruner.fuse import Fused
from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.contrib import BLOCKED, CONTRIB
from onnx_shift.onnx_pruner.graph.network import Network
from onnx_shift.onnx_pruner.op import Channels, Index, Mask, Op
from onnx_shift.onnx_pruner.rules import CONTRIB_RULES, PINNED, PINNED_DOMAINS, RULES

FREE, MERGEABLE, NEEDED = (
    0,
    1,
    2,
)  # how much a channel is needed; MERGEABLE: another constant can stand for it


@dataclass(frozen=True, eq=False)
class Analysis:
    """Facts of a network: per node its effect, per tensor its channels, per channel its class and need.

    Channel c of tensor t has the number `first[t] + c`; `classes`, `need` and `reader` are indexed by it. `reader`
    is the index of the node that needs the channel, -1 for none, -2 for a graph output, -3 for the body of an If.
    `dead` nodes go with the constant branches that they compute: they need and tie nothing.
    """

    ops: tuple[Op, ...]
    effects: tuple[Effect, ...]
    dead: frozenset[int]
    channels: Mapping[str, Channels]
    first: Mapping[str, int]
    classes: Index
    need: NDArray[np.uint8]
    reader: Index
    reasons: Mapping[tuple[int, str], str]

    def numbers(self, tensor: str) -> slice:
        start = self.first[tensor]
        return slice(start, start + self.channels[tensor].count)


def analyse(
    network: Network,
    constants: Constants,
    fused: Fused,
    *,
    sever: bool = True,
    whole: frozenset[str] = frozenset(),
) -> Analysis:
    """Work out the facts of every channel; nothing is edited. `sever`: let constants stand for constant branches;
    `whole`: constants that nothing may be cut out of.
    """
    ops, effects, channels = _forward(network, constants, fused, sever, whole)
    first, total = {}, 0
    for tensor, facts in channels.items():
        first[tensor] = total
        total += facts.count
    need = np.zeros(total, np.uint8)
    reader = np.full(total, -1)
    reasons: dict[tuple[int, str], str] = {}
    for tensor, code in [*((t, -2) for t in network.outputs), *((t, -3) for t in network.captured)]:
        if tensor in channels:
            part = slice(first[tensor], first[tensor] + channels[tensor].count)
            need[part], reader[part] = NEEDED, code
    dead = _dead(network, ops, effects)
    alive = [number for number in range(len(ops)) if number not in dead]
    for number in reversed(alive):
        for name, level in _needs(ops[number], effects[number], need, first, channels):
            part = slice(first[name], first[name] + channels[name].count)
            reader[part] = np.where(level > need[part], number, reader[part])
            need[part] = np.maximum(need[part], level)
        for index, reason in effects[number].pins.items():
            reasons[number, ops[number].name(index)] = reason
        linear = effects[number].linear
        if linear is not None and not linear.plain_bias and not linear.padded:
            reasons[number, ops[number].name(linear.input)] = "a bias in whole steps, which not every constant adds to"
    left, right = _tied_pairs([ops[k] for k in alive], [effects[k] for k in alive], first)
    classes = components(left, right, total)
    return Analysis(tuple(ops), tuple(effects), dead, channels, first, classes, need, reader, reasons)


def _forward(
    network: Network, constants: Constants, fused: Fused, sever: bool, whole: frozenset[str]
) -> tuple[list[Op], list[Effect], dict[str, Channels]]:
    known: dict[str, Channels | None] = {}
    ops, effects = [], []
    for node in network.graph.nodes:
        if all(constants.is_constant(t.name) for t in node.outputs if t.name) and node.outputs:
            continue
        op = Op.of(
            node,
            network,
            constants,
            known,
            fused.batch_norms.get(node.outputs[0].name if node.outputs else ""),
            sever,
        )
        uncut = not whole.isdisjoint(constants.root(name) for name in op.input_names)
        effect = pin_all(op, "a constant that a smaller one would only join") if uncut else effect_of(op)
        effect = _of_named_outputs(effect, node)
        for tensor, facts in zip(node.outputs, effect.outputs, strict=False):
            if facts is not None:
                known[tensor.name] = facts
        ops.append(op)
        effects.append(effect)
    return ops, effects, {name: facts for name, facts in known.items() if facts is not None}


def _dead(network: Network, ops: list[Op], effects: list[Effect]) -> frozenset[int]:
    """Indices of the nodes that nothing reads once constants stand for constant branches."""
    severed = {
        id(op.node): {operand.index for operand in effect.operands if operand.array is not None}
        for op, effect in zip(ops, effects, strict=True)
    }
    wanted = network.wanted(severed)
    return frozenset(number for number, op in enumerate(ops) if wanted.isdisjoint(op.output_names))


def _of_named_outputs(effect: Effect, node: gs.Node) -> Effect:
    """The effect without what it says of outputs that the node leaves out, by an empty name."""
    named = [bool(tensor.name) for tensor in node.outputs]
    if all(named):
        return effect
    outputs = tuple(facts if name else None for facts, name in zip(effect.outputs, named, strict=False))
    return replace(effect, outputs=outputs, ties=tuple(tie for tie in effect.ties if named[tie.output]))


def lost_folds(analysis: Analysis, fused: Fused) -> frozenset[str]:
    """Outputs of layers that cannot take up the BatchNormalization folded into them: their rule found them to be no
    plain layer.
    """
    linears = [(op.output, effect.linear) for op, effect in zip(analysis.ops, analysis.effects, strict=True)]
    taken = {name for name, linear in linears if linear and linear.plain_weight and linear.plain_bias}
    return frozenset(fused.batch_norms.keys() - taken)


def effect_of(op: Op) -> Effect:
    """Apply the operator's rule; an operator without one pins all its inputs."""
    rules = RULES if op.node.domain in (None, "", "ai.onnx") else CONTRIB_RULES if op.node.domain == CONTRIB else {}
    bodies = any(isinstance(value, gs.Graph) for value in op.node.attrs.values())
    rule = rules.get(op.type) if not bodies else None
    if op.node.domain == BLOCKED:
        return pin_all(op, "channels in blocks, as onnxruntime's optimiser lays them out: prune before that")
    if rule is None:
        reason = PINNED.get(op.type) if rules is RULES else PINNED_DOMAINS.get(op.node.domain)
        return pin_all(op, reason or f"no rule for operator {op.type}")
    if any(op.channels(i) is not None and op.shape(i) is None for i in op.inputs):
        return pin_all(op, "an input of unknown shape")
    return rule(op)


def _needs(
    op: Op,
    effect: Effect,
    need: NDArray[np.uint8],
    first: Mapping[str, int],
    channels: Mapping[str, Channels],
) -> list[tuple[str, NDArray[np.uint8]]]:
    """(tensor, need per channel): what this node needs of its inputs, given what is needed of its outputs."""
    found = []
    if effect.held is not None:
        part = slice(first[op.output], first[op.output] + len(effect.held[0]))
        found.append((op.output, np.where(effect.held[0], NEEDED, FREE).astype(np.uint8)))
        need[part] = np.maximum(need[part], found[-1][1])
    for index in effect.pins:
        name = op.name(index)
        read = effect.reads.get(index, np.ones(channels[name].count, np.bool_))
        found.append((name, np.where(read, NEEDED, FREE).astype(np.uint8)))
    live: dict[int, Mask] = {}
    for o, facts in enumerate(effect.outputs):
        if facts is not None:
            start = first[op.output_names[o]]
            live[o] = (need[start : start + facts.count] > FREE) & ~facts.constant
    if effect.feeds is not None and live:
        units = _needed_units(effect.feeds, list(live.values()))
        found += [(op.output_names[o], np.where(units, NEEDED, FREE).astype(np.uint8)) for o in live]
        live = dict.fromkeys(live, units)
    if effect.linear is not None:
        source = op.channels(effect.linear.input)
        if source is not None:
            found.append((op.name(effect.linear.input), _linear_needs(effect.linear, live[0], source)))
        return found
    for tie in effect.ties:
        level = np.zeros(channels[op.name(tie.input)].count, np.uint8)
        level[tie.source[live[tie.output][tie.target]]] = NEEDED
        found.append((op.name(tie.input), level))
    return found


def _needed_units(feeds: Mask, read: list[Mask]) -> Mask:
    """The units of a state that a reader of one of the outputs needs, and those that such units read."""
    units: Mask = np.logical_or.reduce(read)
    while (more := units | feeds[units].any(axis=0)).sum() > units.sum():
        units = more
    return units


def _linear_needs(linear: Linear, live: Mask, source: Channels) -> NDArray[np.uint8]:
    groups, outputs, _ = linear.kernel.shape
    kernel = linear.kernel if live.all() else linear.kernel & live.reshape(groups, outputs, 1)
    read = kernel.any(axis=1).reshape(-1)
    constant = source.constant & (source.value != 0)
    level = np.where(read & ~source.constant, NEEDED, FREE)
    level[read & constant & ~linear.folds] = MERGEABLE if linear.merges else NEEDED
    return level.astype(np.uint8)


def _tied_pairs(ops: list[Op], effects: list[Effect], first: Mapping[str, int]) -> tuple[Index, Index]:
    left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for op, effect in zip(ops, effects, strict=True):
        for tie in effect.ties:
            left.append(first[op.name(tie.input)] + tie.source)
            right.append(first[op.output_names[tie.output]] + tie.target)
        if effect.together is not None:
            left.append(first[op.output] + effect.together)
            right.append(first[op.output] + np.arange(len(effect.together)))
        if effect.feeds is not None:
            starts = [first[name] for name, facts in zip(op.output_names, effect.outputs, strict=False) if facts]
            for start in starts[1:]:
                left.append(starts[0] + np.arange(len(effect.feeds)))
                right.append(start + np.arange(len(effect.feeds)))
    return np.concatenate(left), np.concatenate(right)


def components(left: Index, right: Index, total: int) -> Index:
    """Number the connected components of `total` things joined in pairs, by letting the smallest number spread."""
    label = np.arange(total)
    while True:
        before = label.copy()
        low = np.minimum(label[left], label[right])
        np.minimum.at(label, label[left], low)
        np.minimum.at(label, label[right], low)
        while not np.array_equal(label, label[label]):
            label = label[label]
        if np.array_equal(before, label):
            return np.asarray(np.unique(label, return_inverse=True)[1])


def with_shared_weights_tied(analysis: Analysis) -> Analysis | None:
    """The same facts with the layers that share a weight tied, so that it is sliced alike for all of them.

    None when no weight is shared. Such a layer takes up no constants through another channel: that would change it.
    """
    sharing: dict[str, list[Op]] = {}
    for op, effect in zip(analysis.ops, analysis.effects, strict=True):
        if effect.linear is not None:
            sharing.setdefault(op.constants.root(op.name(effect.linear.weight)), []).append(op)
    groups = [ops for ops in sharing.values() if len(ops) > 1]
    if not groups:
        return None
    need = analysis.need.copy()
    left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for ops in groups:
        inputs = [op.name(1 if op.constants.is_constant(op.name(0)) else 0) for op in ops]
        outputs = [op.output for op in ops]
        for names in (inputs, outputs):
            numbers = [_range(analysis, name) for name in names if name in analysis.channels]
            if len(numbers) < len(names) or len({len(n) for n in numbers}) > 1:
                for n in numbers:
                    need[n] = NEEDED
                continue
            for n in numbers:
                need[n[need[n] == MERGEABLE]] = NEEDED
                left.append(analysis.classes[numbers[0]])
                right.append(analysis.classes[n])
    count = int(analysis.classes.max(initial=-1)) + 1
    joined = components(np.concatenate(left), np.concatenate(right), count)
    return replace(analysis, need=need, classes=joined[analysis.classes])


def _range(analysis: Analysis, name: str) -> Index:
    return np.arange(analysis.numbers(name).start, analysis.numbers(name).stop)
