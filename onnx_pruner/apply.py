"""Carry out a plan: the only code that slices arrays, all layers in one pass.

Constant inputs that go move into the bias, or into the channel that stands for them; a constant output that stays
gets weights 0 and its value as bias. Zeros are written as +0.0, which deflates better than a mask's -0.0.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.analysis import Analysis
from onnx_shift.onnx_pruner.channels import Channels, Linear, Mask, Op, Operand, Values
from onnx_shift.onnx_pruner.constants import Constants
from onnx_shift.onnx_pruner.fuse import Fused
from onnx_shift.onnx_pruner.graph import Array, Network
from onnx_shift.onnx_pruner.plan import Plan
from onnx_shift.onnx_pruner.rewriter import Rewriter, Weights, patched
from onnx_shift.onnx_pruner.rules_linear import bias_vector, by_group, folded


@dataclass
class _Surgery:
    network: Network
    constants: Constants
    analysis: Analysis
    plan: Plan
    weights: Weights
    users: dict[str, int]
    sliced: dict[tuple[str, ...], gs.Variable]
    made: list[gs.Node]  # nodes that only constants feed, to go first


def apply(network: Network, constants: Constants, analysis: Analysis, plan: Plan, fused: Fused) -> Weights:
    """Edit the graph as planned and return the new initializers by name."""
    names = {t.name for node in network.graph.nodes for t in (*node.inputs, *node.outputs)}
    names |= {t.name for nodes in fused.shuffles.values() for node in nodes for t in node.outputs}
    names |= network.initializers.keys() | network.captured
    users: dict[str, int] = {}
    for node in network.graph.nodes:
        for tensor in node.inputs:
            users[tensor.name] = users.get(tensor.name, 0) + 1
    surgery = _Surgery(network, constants, analysis, plan, Weights(names), users, {}, [])
    edited = {id(op.node): number for number, op in enumerate(analysis.ops)}
    nodes: list[gs.Node] = []
    for node in network.graph.nodes:
        number = edited.get(id(node))
        nodes += [node] if number is None else _edit(surgery, number, fused)
    network.graph.nodes[:] = surgery.made + nodes
    _report_old_sizes(surgery)
    _remove_dead(network)
    return surgery.weights


def _edit(surgery: _Surgery, number: int, fused: Fused) -> list[gs.Node]:
    op, effect = surgery.analysis.ops[number], surgery.analysis.effects[number]
    node, keep = op.node, surgery.plan.keep
    tensors = [t.name for t in (*node.inputs, *node.outputs) if t.name in keep]
    cut = any(not keep[name].all() for name in tensors)
    if node.op == "ChannelShuffle":
        return _shuffle(surgery, op, fused.shuffles[node.outputs[0].name], cut)
    rewriter = Rewriter(op, keep, surgery.weights)
    if effect.linear is not None and (cut or effect.linear.scale is not None):
        _rewrite_linear(surgery, op, effect.linear, effect.outputs[0], rewriter)
    for operand in effect.operands:
        _slice_operand(surgery, op, operand, keep[node.outputs[operand.output].name])
    if cut and effect.rewrite is not None:
        effect.rewrite(rewriter)
    if any(operand.array is not None for operand in effect.operands):
        _skip_neutral(surgery, op)
    return [*rewriter.before, node, *rewriter.after]


def _slice_operand(surgery: _Surgery, op: Op, operand: Operand, mask: Mask) -> None:
    if operand.array is not None:
        node = op.node
        node.inputs[operand.index] = surgery.weights.add(
            f"{node.outputs[0].name}_constant", np.compress(mask, operand.array, axis=operand.axis)
        )
        return
    size = op.size(operand.index, operand.axis)
    part = mask[operand.start : operand.start + size] if isinstance(size, int) else mask
    if part.all():
        return
    array = op.constant(operand.index)
    assert array is not None
    name = op.name(operand.index)
    key = (name, str(operand.axis), part.tobytes().hex())
    if key not in surgery.sliced:
        surgery.sliced[key] = _own(surgery, name, np.compress(part, array, axis=operand.axis))
    op.node.inputs[operand.index] = surgery.sliced[key]


def _own(surgery: _Surgery, name: str, array: Array) -> gs.Variable:
    """Write a weight under its own name if nobody else reads it, else under a new one."""
    if (
        surgery.constants.is_initializer(name)
        and surgery.users.get(name, 0) == 1
        and name not in surgery.network.captured
    ):
        surgery.weights.replace(name, array)
        return gs.Variable(name)
    return surgery.weights.add(name, array)


# --- layers with weights ---------------------------------------------------------------------------------------


def _rewrite_linear(
    surgery: _Surgery, op: Op, linear: Linear, out: Channels | None, rewriter: Rewriter
) -> None:
    node, weight = op.node, op.constant(linear.weight)
    assert weight is not None and out is not None
    groups, outputs, inputs = linear.kernel.shape
    keep_out = surgery.plan.keep[node.outputs[0].name]
    source = op.channels(linear.input) or Channels.varying(1, groups * inputs)
    keep_in = surgery.plan.keep.get(op.name(linear.input), np.ones(groups * inputs, np.bool_))
    rows = np.nonzero(keep_out)[0]
    gone = ~keep_in & source.constant & (source.value != 0)
    standing = surgery.plan.representative.get(op.name(linear.input)) if linear.padded else None
    constant = (
        np.nonzero(out.constant[rows])[0] if not keep_in.all() and linear.exact else np.empty(0, np.int64)
    )
    scale = None if linear.scale is None else linear.scale[rows]
    merged = _merged(linear, weight, rows, gone, source.value, standing)
    plain = merged is None and scale is None and not len(constant)
    if not (plain and keep_in.all() and keep_out.all()):
        key = (op.name(linear.weight), keep_in.tobytes().hex(), keep_out.tobytes().hex())
        if plain and key in surgery.sliced:
            node.inputs[linear.weight] = surgery.sliced[key]
        else:
            node.inputs[linear.weight] = _new_weight(
                surgery, op, linear, weight, (keep_in, keep_out), merged, constant
            )
            if plain:
                surgery.sliced[key] = node.inputs[linear.weight]
    if groups > 1:
        kept = keep_out.reshape(groups, outputs).any(axis=1) | keep_in.reshape(groups, inputs).any(axis=1)
        node.attrs["group"] = int(kept.sum())
    _write_bias(surgery, op, linear, weight, out, rows, gone, rewriter)


def _merged(
    linear: Linear, weight: Array, rows: Array, gone: Mask, value: Values, standing: int | None
) -> tuple[int, Array] | None:
    """(channel, kernels to add to it): what the constant channels that go contribute through it."""
    if standing is None or not gone.any():
        return None
    view = by_group(weight, 1, linear.input_first)[0]
    columns = np.nonzero(gone)[0]
    ratio = value[columns] / value[standing]
    taps = view[np.ix_(rows, columns)].astype(np.float64)
    return standing, np.tensordot(ratio, taps, axes=(0, 1))


def _new_weight(
    surgery: _Surgery,
    op: Op,
    linear: Linear,
    weight: Array,
    keep: tuple[Mask, Mask],
    merged: tuple[int, Array] | None,
    constant: Array,
) -> gs.Variable:
    """The weight with the channels that stay; `constant` are positions of outputs whose weights become 0."""
    keep_in, keep_out = keep
    scale = None if linear.scale is None else linear.scale[keep_out]
    part = _cut(linear, weight, keep_in, keep_out)
    name = op.name(linear.weight)
    if (
        is_uniform(weight)
        and merged is None
        and not len(constant)
        and (scale is None or (scale == scale[0]).all())
    ):
        factor = weight.dtype.type(1 if scale is None else scale[0])
        return _uniform(surgery, name, _layout(part, linear).shape, weight.flat[0] * factor)
    rows = (*part.shape[:2], *(1,) * (part.ndim - 2))
    if scale is not None:
        part = part * scale.astype(weight.dtype).reshape(rows)
    elif np.may_share_memory(part, weight):
        part = part.copy()
    if merged is not None:
        extra = merged[1] if scale is None else merged[1] * scale.reshape(rows)[0, :, 0]
        part[0][:, int(keep_in[: merged[0]].sum())] += extra.astype(weight.dtype)
    part.reshape(-1, *part.shape[2:])[constant] = 0
    part += weight.dtype.type(0)  # -0.0 becomes +0.0
    return _own(surgery, name, _layout(part, linear))


def _cut(linear: Linear, weight: Array, keep_in: Mask, keep_out: Mask) -> Array:
    """The weights that stay, as (groups, outputs per group, inputs per group, …)."""
    groups, outputs, inputs = linear.kernel.shape
    view = by_group(weight, groups, linear.input_first)
    rows, columns = keep_out.reshape(groups, outputs), keep_in.reshape(groups, inputs)
    alive = np.nonzero(rows.any(axis=1) | columns.any(axis=1))[0]
    if groups == 1:
        part = view if rows.all() else view[:, rows[0]]
        return part if columns.all() else part[:, :, columns[0]]
    if rows[alive].all() and columns[alive].all():
        return view[alive]
    return np.stack([view[g][rows[g]][:, columns[g]] for g in alive])


def _layout(part: Array, linear: Linear) -> Array:
    """From (groups, outputs, inputs, …) to the layout of the operator's weight."""
    part = part.swapaxes(1, 2) if linear.input_first else part
    return np.ascontiguousarray(part.reshape((part.shape[0] * part.shape[1], *part.shape[2:])))


def is_uniform(weight: Array) -> bool:
    """Whether an array is one value throughout, and takes no memory: the output of ConstantOfShape."""
    return weight.size > 1 and all(stride == 0 for stride in weight.strides)


def _uniform(surgery: _Surgery, name: str, shape: tuple[int, ...], value: Array) -> gs.Variable:
    """A weight of one value throughout stays a ConstantOfShape, of the new shape."""
    fill = gs.Constant(surgery.weights.name(f"{name}_value"), np.asarray(value).reshape(1))
    result = gs.Variable(surgery.weights.name(name))
    node = gs.Node("ConstantOfShape", surgery.weights.name(f"{name}_node"), {"value": fill},
                   [surgery.weights.add(f"{name}_shape", np.asarray(shape, np.int64))], [result])  # fmt: skip
    surgery.made.append(node)
    return result


def _write_bias(
    surgery: _Surgery,
    op: Op,
    linear: Linear,
    weight: Array,
    out: Channels,
    rows: Array,
    gone: Mask,
    rewriter: Rewriter,
) -> None:
    node = op.node
    old = None if linear.bias is None else op.constant(linear.bias)
    value = bias_vector(op, linear, old)[rows]
    if gone.any() and not linear.padded:
        value = value + folded(linear, weight, rows, gone, source_value(op, linear))
    value = np.where(out.constant[rows], out.value[rows], value) if linear.exact else value
    if not linear.exact or (old is None and not value.any()):
        if old is not None and len(rows) < old.size:
            _slice_operand(surgery, op, Operand(linear.bias or 0, 0), surgery.plan.keep[node.outputs[0].name])
        return
    if (
        old is not None
        and old.size == len(rows)
        and np.array_equal(value, old.reshape(-1).astype(np.float64))
    ):
        return
    new = value.astype(weight.dtype)
    if is_uniform(weight) and linear.bias is not None and len(new) > 1 and (new == new[0]).all():
        while len(node.inputs) <= linear.bias:
            node.inputs.append(gs.Variable.empty())
        node.inputs[linear.bias] = _uniform(surgery, f"{op.name(linear.weight)}_bias", new.shape, new[0])
        node.attrs.update({"beta": 1.0} if linear.bias_gain != 1 else {})
        return
    if linear.bias is None:
        whole = gs.Variable(surgery.weights.name(f"{node.outputs[0].name}_unbiased"))
        rewriter.after.append(
            gs.Node("Add", surgery.weights.name(f"{node.name}_bias"), {},
                    [whole, surgery.weights.add(f"{node.outputs[0].name}_bias", new)], [node.outputs[0]])
        )  # fmt: skip
        node.outputs[0] = whole
    else:
        while len(node.inputs) <= linear.bias:
            node.inputs.append(gs.Variable.empty())
        if old is None:
            node.inputs[linear.bias] = surgery.weights.add(f"{op.name(linear.weight)}_bias", new)
        else:
            node.inputs[linear.bias] = _own(surgery, op.name(linear.bias), new)
        if linear.bias_gain != 1:
            node.attrs["beta"] = 1.0


def source_value(op: Op, linear: Linear) -> Values:
    channels = op.channels(linear.input)
    assert channels is not None
    return channels.value


# --- the rest of the graph -------------------------------------------------------------------------------------


def _shuffle(surgery: _Surgery, op: Op, original: list[gs.Node], cut: bool) -> list[gs.Node]:
    """Put the three nodes of a channel shuffle back, or a Gather in their place."""
    if not cut:
        return original
    rewriter = Rewriter(op, surgery.plan.keep, surgery.weights)
    source = np.asarray(op.attr("source"))
    indices = rewriter.positions(0)[source[rewriter.keep_out(0)]].astype(np.int64)
    output = op.node.outputs[0]
    gather = gs.Node("Gather", op.node.name, {"axis": op.attr("axis")}, [op.node.inputs[0]])
    gather.inputs.append(surgery.weights.add(f"{output.name}_channels", indices))
    list.append(gather.outputs, output)
    return [gather]


NEUTRAL = {
    "Add": (0.0, (0, 1)),
    "Sum": (0.0, (0, 1)),
    "Sub": (0.0, (1,)),
    "Mul": (1.0, (0, 1)),
    "Div": (1.0, (1,)),
}


def _skip_neutral(surgery: _Surgery, op: Op) -> None:
    """x + 0, x · 1 and the like become x."""
    node = op.node
    value, places = NEUTRAL.get(node.op, (0.0, ()))
    for k in places:
        written = surgery.weights.written.get(node.inputs[k].name) if len(node.inputs) == 2 else None
        if written is None:
            continue
        if (onnx.numpy_helper.to_array(written) == value).all():
            other = node.inputs[1 - k]
            node.op, node.attrs = "Identity", {}
            node.inputs.clear()
            node.inputs.append(other)
            return


def _report_old_sizes(surgery: _Surgery) -> None:
    """Whoever asks for the Shape of a tensor that got smaller is told its old channel count: the sizes worked out
    from it stay what they were, and the operators that use them were patched where needed."""
    keep, channels = surgery.plan.keep, surgery.analysis.channels
    nodes: list[gs.Node] = []
    for node in surgery.network.graph.nodes:
        nodes.append(node)
        name = node.inputs[0].name if node.inputs else ""
        if node.op != "Shape" or name not in keep or keep[name].all():
            continue
        shape = surgery.network.shapes.get(name, ())
        span = range(len(shape))[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        if channels[name].axis not in span:
            continue
        result = node.outputs[0]
        raw = gs.Variable(surgery.weights.name(f"{result.name}_now"))
        node.outputs[0] = raw
        holder = gs.Node("Identity", inputs=[raw], outputs=[gs.Variable("unused")])
        added = patched(
            surgery.weights, raw, span.index(channels[name].axis), channels[name].count, len(span), holder, 0
        )
        added[-1].outputs[0] = result
        nodes += added
    surgery.network.graph.nodes[:] = nodes


def _remove_dead(network: Network) -> None:
    """Drop nodes that no graph output depends on."""
    wanted = {*network.outputs, *network.captured}
    alive: list[gs.Node] = []
    for node in reversed(network.graph.nodes):
        if any(t.name in wanted for t in node.outputs):
            alive.append(node)
            wanted.update(t.name for t in node.inputs)
    network.graph.nodes[:] = alive[::-1]
