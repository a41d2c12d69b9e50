"""Carry out a plan: the only code that edits the graph, all nodes in one pass (weights of layers: see `layers`)."""

import numpy as np
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.analysis import Analysis
from onnx_shift.onnx_pruner.effect import Operand
from onnx_shift.onnx_pruner.fuse import Fused
from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.network import Network
from onnx_shift.onnx_pruner.layers import Surgery, rewrite_layer
from onnx_shift.onnx_pruner.op import Mask, Op
from onnx_shift.onnx_pruner.plan import Plan
from onnx_shift.onnx_pruner.rewriter import Rewriter, Weights
from onnx_shift.onnx_pruner.sizes import settle_sizes


def apply(network: Network, constants: Constants, analysis: Analysis, plan: Plan, fused: Fused) -> Weights:
    """Edit the graph as planned and return the new initializers by name."""
    names = {t.name for node in network.graph.nodes for t in (*node.inputs, *node.outputs)}
    names |= {t.name for nodes in fused.shuffles.values() for node in nodes for t in node.outputs}
    names |= network.initializers.keys() | network.reserved
    surgery = Surgery(constants, plan, Weights(names, release=network.mapped.release), constants.readers())
    numbers = {id(op.node): number for number, op in enumerate(analysis.ops) if number not in analysis.dead}
    nodes: list[gs.Node] = []
    for node in network.graph.nodes:
        number = numbers.get(id(node))
        if id(node) in surgery.skipped:
            continue
        if number is not None:
            nodes += _edit(surgery, analysis, number, fused)
        elif not _stated(surgery, node):
            nodes.append(node)
    network.graph.nodes[:] = nodes
    _join_biases(network, surgery)
    settle_sizes(network, surgery.weights, analysis.channels, plan.keep, surgery.sizes)
    _remove_dead(network)
    return surgery.weights


def _edit(surgery: Surgery, analysis: Analysis, number: int, fused: Fused) -> list[gs.Node]:
    op, effect = analysis.ops[number], analysis.effects[number]
    node, keep, vanishing = op.node, surgery.plan.keep, surgery.plan.vanishing
    if vanishing and all(t.name in vanishing for t in node.outputs if t.name):
        return []
    cut = any(not keep[t.name].all() for t in (*node.inputs, *node.outputs) if t.name in keep)
    cut |= op.output in surgery.plan.narrow
    if node.op == "ChannelShuffle":
        return _shuffle(surgery, op, fused, cut)
    rewriter = Rewriter(op, keep, surgery.weights)
    if effect.linear is not None and (cut or effect.linear.scale is not None):
        rewrite_layer(surgery, op, effect.linear, rewriter)
    for operand in effect.operands:
        _slice_operand(surgery, op, operand, keep[op.output_names[operand.output]])
    if cut and effect.rewrite is not None:
        effect.rewrite(rewriter)
    if effect.joins and vanishing:
        _read_only(node, [t for t in node.inputs if t.name not in vanishing])
    if any(operand.array is not None for operand in effect.operands):
        _skip_neutral(surgery, op)
    made, surgery.made = surgery.made, []
    surgery.sizes |= {(id(node), index): size for index, size in rewriter.sizes.items()}
    return [*made, node, *rewriter.after]


def _stated(surgery: Surgery, node: gs.Node) -> bool:
    """Whether a node read the size of a tensor that is cut, and its value is written in its place (of Shape, `sizes`
    keeps the entries that others read).
    """
    if node.op not in ("Size", "EyeLike") or surgery.plan.keep.get(node.inputs[0].name, np.ones(1)).all():
        return False
    value = surgery.constants.get(node.outputs[0].name)
    assert value is not None
    surgery.weights.replace(node.outputs[0].name, value)
    return True


def _slice_operand(surgery: Surgery, op: Op, operand: Operand, mask: Mask) -> None:
    inputs = op.node.inputs
    if operand.array is not None:
        array = np.compress(mask, operand.array, axis=operand.axis)
        inputs[operand.index] = surgery.weights.add(f"{op.output}_constant", array)
        return
    size = op.size(operand.index, operand.axis)
    part = mask[operand.start : operand.start + size] if isinstance(size, int) else mask
    inputs[operand.index] = surgery.slice(inputs[operand.index], {operand.axis: part})


def _shuffle(surgery: Surgery, op: Op, fused: Fused, cut: bool) -> list[gs.Node]:
    """Put the nodes of a channel shuffle back, or a Gather in their place; several may share some of the nodes."""
    name = op.output
    if not cut:
        surgery.skipped.update(map(id, fused.views.get(name, ())))
        nodes = [node for node in fused.shuffles[name] if id(node) not in surgery.skipped]
        surgery.skipped.update(map(id, nodes))
        return nodes
    rewriter = Rewriter(op, surgery.plan.keep, surgery.weights)
    source = np.asarray(op.attr("source"))
    indices = rewriter.positions(0)[source[rewriter.keep_out(0)]].astype(np.int64)
    result, first, last = op.node.outputs[0], int(indices[0]), int(indices[-1])
    kind, attributes, values = "Gather", {"axis": op.attr("axis")}, [("channels", indices)]
    if op.opset >= SLICE_BY_INPUT and np.array_equal(indices, np.arange(first, last + 1)):
        bounds = {"start": [first], "end": [last + 1], "axis": [op.attr("axis")]}
        kind, attributes, values = "Slice", {}, [(key, np.asarray(bound, np.int64)) for key, bound in bounds.items()]
    node = gs.Node(kind, op.node.name, attributes, [op.node.inputs[0]])
    node.inputs.extend(surgery.weights.add(f"{name}_{key}", value) for key, value in values)
    list.append(node.outputs, result)
    return [node]


SLICE_BY_INPUT = 10
NEUTRAL = {
    "Add": (0.0, (0, 1)),
    "Sum": (0.0, (0, 1)),
    "Sub": (0.0, (1,)),
    "Mul": (1.0, (0, 1)),
    "Div": (1.0, (1,)),
}


def _skip_neutral(surgery: Surgery, op: Op) -> None:
    """x + 0, x · 1 and the like become x."""
    node = op.node
    value, places = NEUTRAL.get(node.op, (0.0, ()))
    for k in places if len(node.inputs) == 2 else ():
        name = node.inputs[k].name
        constant = surgery.value(name) if name in surgery.weights.written else None
        if constant is not None and (constant == value).all():
            _read_only(node, [node.inputs[1 - k]])
            return


def _read_only(node: gs.Node, inputs: list[gs.Tensor]) -> None:
    """Leave a node some of its inputs; where that is one, what it puts out."""
    if len(inputs) == 1:
        node.op, node.attrs = "Identity", {}
    node.inputs.clear()
    node.inputs.extend(inputs)


def _join_biases(network: Network, surgery: Surgery) -> None:
    """A bias that a MatMul was given is added to the constant that is added next, where there is one."""
    readers: dict[str, list[tuple[gs.Node, int]]] = {bias.outputs[0].name: [] for bias in surgery.biases}
    for node in network.graph.nodes:
        for k, tensor in enumerate(node.inputs):
            if tensor.name in readers:
                readers[tensor.name].append((node, k))
    pinned, gone = {*network.outputs, *network.captured}, set()
    for bias in surgery.biases:
        name = bias.outputs[0].name
        if len(readers[name]) != 1 or readers[name][0][0].op != "Add" or name in pinned:
            continue
        reader, k = readers[name][0]
        other = reader.inputs[1 - k]
        added, constant = surgery.value(bias.inputs[1].name), surgery.value(other.name)
        if added is None or constant is None or added.dtype != constant.dtype:
            continue
        total = added + constant
        if total.size <= max(added.size, constant.size):
            reader.inputs[k], reader.inputs[1 - k] = bias.inputs[0], surgery.weights.add(other.name, total)
            gone.add(id(bias))
    network.graph.nodes[:] = [node for node in network.graph.nodes if id(node) not in gone]


def _remove_dead(network: Network) -> None:
    """Drop nodes that no graph output depends on."""
    wanted = network.wanted()
    nodes = network.graph.nodes
    nodes[:] = [node for node in nodes if any(t.name in wanted for t in node.outputs)]
