"""New weights and biases for a layer that lost channels: part of `apply`.

A constant input that is removed moves into the bias, where the layer does not pad; where it does, its kernels are
added, scaled, to those of the channel that stands for it. Nothing else about the layer changes, so a constant output
stays constant: its weights on varying inputs are zero, and what its constant inputs gave is now in its bias.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.effect import Linear
from onnx_shift.onnx_pruner.graph.constants import ARITHMETIC, Constants
from onnx_shift.onnx_pruner.graph.network import Array
from onnx_shift.onnx_pruner.op import Channels, Mask, Op
from onnx_shift.onnx_pruner.plan import Narrow, Plan
from onnx_shift.onnx_pruner.rewriter import Rewriter, Size, Weights
from onnx_shift.onnx_pruner.rules.linear import bias_vector, by_group, folded, kernels


@dataclass
class Surgery:
    """What layers share while they are rewritten; slices of one weight that are the same are written once."""

    constants: Constants
    plan: Plan
    weights: Weights
    users: Counter[str]  # how many inputs, outputs and bodies read each tensor
    sliced: dict[tuple[object, ...], gs.Tensor] = field(default_factory=dict)
    sizes: dict[tuple[int, int], Size] = field(default_factory=dict)  # by id of a node and index of its input
    biases: list[gs.Node] = field(default_factory=list)  # each the Add of a bias behind a MatMul
    made: list[gs.Node] = field(default_factory=list)  # to go before the node that is being rewritten
    skipped: set[int] = field(default_factory=set)  # nodes, by id, that are in the graph already or need not be

    def has_one_reader(self, name: str) -> bool:
        return self.users[name] == 1

    def value(self, name: str) -> Array | None:
        """A constant as it is now; None for what is stored in a narrower type, and must stay so."""
        if name in self.weights.written:
            return onnx.numpy_helper.to_array(self.weights.written[name])
        known = self.constants.is_constant(name) and not self.constants.is_widened(name)
        return self.constants.get(name) if known else None

    def own(self, name: str, array: Array, alone: bool = True) -> gs.Tensor:
        """Write a constant under its own name if nobody else reads it, else under a new one."""
        if alone and self.constants.is_initializer(name) and self.has_one_reader(name):
            self.weights.replace(name, array)
            return gs.Variable(name)
        self.weights.copied.add(name)
        return self.weights.add(name, array)

    def slice(self, tensor: gs.Tensor, masks: Mapping[int, Mask], alone: bool = True) -> gs.Tensor:
        """A constant with the entries of `masks` (by axis) that stay.

        What is stored in a narrower type is sliced before it is widened, with scales and zero points, so that it stays
        narrow.
        """
        masks = {axis: mask for axis, mask in masks.items() if not mask.all()}
        if not masks:
            return tensor
        tensor = gs.Variable(self.constants.root(tensor.name))
        key = (tensor.name, *((axis, mask.tobytes()) for axis, mask in sorted(masks.items())))
        if key not in self.sliced:
            node = self.constants.producers.get(tensor.name)
            if node is not None and self.constants.is_widened(tensor.name):
                self.sliced[key] = self._slice_before(node, masks, alone and self.has_one_reader(tensor.name))
            else:
                array = self.constants.get(tensor.name)
                assert array is not None
                kept = {axis: np.nonzero(mask)[0] for axis, mask in masks.items()}
                if kept.keys() == {0, 1}:
                    array = kernels(array, kept[0], kept[1], input_first=False)
                else:
                    for axis, places in kept.items():
                        array = array.take(places, axis)
                if array.dtype.kind == "f":
                    array += array.dtype.type(0)  # -0.0 becomes +0.0
                self.sliced[key] = self.own(tensor.name, array, alone)
        return self.sliced[key]

    def dequantise(self, like: gs.Node, stored: gs.Tensor, keep: Mask) -> gs.Tensor:
        """A DequantizeLinear as another, of other numbers, with the scales and zero points of channels that stay."""
        parameters = [
            self.slice(tensor, {0: keep} if self.constants.shape(tensor.name) == (len(keep),) else {})
            for tensor in like.inputs[1:]
        ]
        result = gs.Variable(self.weights.name(like.outputs[0].name))
        name = self.weights.name(f"{result.name}_node")
        self.made.append(gs.Node(like.op, name, dict(like.attrs), [stored, *parameters], [result]))
        return result

    def _slice_before(self, node: gs.Node, masks: Mapping[int, Mask], alone: bool) -> gs.Tensor:
        inputs = list(node.inputs)
        rank = len(self.constants.shape(node.outputs[0].name))
        if node.op == "Transpose":
            perm = node.attrs.get("perm") or list(range(rank))[::-1]
            inputs[0] = self.slice(inputs[0], {perm[axis]: mask for axis, mask in masks.items()}, alone)
        elif node.op in ARITHMETIC:
            for k, tensor in enumerate(inputs):
                shape = self.constants.shape(tensor.name)
                own = {axis - rank + len(shape): mask for axis, mask in masks.items()}
                own = {axis: mask for axis, mask in own.items() if axis >= 0 and shape[axis] == len(mask)}
                inputs[k] = self.slice(tensor, own, alone)
        else:
            inputs[0] = self.slice(inputs[0], masks, alone)
        if node.op == "DequantizeLinear":
            axis = node.attrs.get("axis", 1) % rank
            for k in range(1, len(inputs)):
                if axis in masks and self.constants.shape(inputs[k].name) == (len(masks[axis]),):
                    inputs[k] = self.slice(inputs[k], {0: masks[axis]}, alone)
        result = gs.Variable(self.weights.name(node.outputs[0].name))
        attributes = dict(node.attrs)
        self.made.append(gs.Node(node.op, self.weights.name(f"{result.name}_node"), attributes, inputs, [result]))
        return result


@dataclass(frozen=True, eq=False)
class _Cut:
    """What is removed and what stays of one layer."""

    keep_in: Mask
    keep_out: Mask
    gone: Mask  # constant inputs, other than zero, that go
    source: Channels
    standing: int | None  # the input that stands for those

    @property
    def rows(self) -> Array:
        return np.nonzero(self.keep_out)[0]


def rewrite_layer(surgery: Surgery, op: Op, linear: Linear, rewriter: Rewriter) -> None:
    """Give a layer the weights and the bias of the channels that stay."""
    groups, outputs, inputs = linear.kernel.shape
    source = op.channels(linear.input) or Channels.varying(1, groups * inputs)
    keep_in = surgery.plan.keep.get(op.name(linear.input), np.ones(groups * inputs, np.bool_))
    keep_out = surgery.plan.keep[op.output]
    gone = ~keep_in & source.constant & (source.value != 0)
    standing = surgery.plan.representative.get(op.name(linear.input)) if linear.merges and gone.any() else None
    narrow = surgery.plan.narrow.get(op.output)
    if narrow is not None:
        _gather_around(surgery, op, linear, keep_in, narrow, rewriter)
        keep_in, keep_out = narrow.inputs, narrow.outputs
    cut = _Cut(keep_in, keep_out, gone, source, standing)
    weight, bias = op.constant(linear.weight), op.constant(linear.bias) if linear.bias is not None else None
    assert weight is not None
    weight, tensor = linear.view(weight), op.node.inputs[linear.weight]
    if linear.layout or (linear.scale is None and standing is None and not is_uniform(weight)):
        op.node.inputs[linear.weight] = _slice_weight(surgery, tensor, weight, linear, cut)
    else:
        op.node.inputs[linear.weight] = _new_weight(surgery, tensor, weight, linear, cut)
    if groups > 1:
        alive = keep_out.reshape(groups, outputs).any(axis=1) | keep_in.reshape(groups, inputs).any(axis=1)
        op.node.attrs["group"] = int(alive.sum())
    _write_bias(surgery, op, linear, cut, weight, bias, rewriter)


def _gather_around(surgery: Surgery, op: Op, linear: Linear, keep_in: Mask, narrow: Narrow, rewriter: Rewriter) -> None:
    """Let a layer read some channels and make some; layers that read the same ones share a Gather."""
    axis, name = 1, op.name(linear.input)
    if not np.array_equal(narrow.inputs, keep_in):
        key = ("picked", name, narrow.inputs.tobytes())
        if key not in surgery.sliced:
            places = (np.cumsum(keep_in) - 1)[narrow.inputs]
            indices = surgery.weights.add(f"{name}_channels", places.astype(np.int64))
            picked = surgery.sliced[key] = gs.Variable(surgery.weights.name(f"{name}_picked"))
            node = surgery.weights.name(f"{name}_gather")
            surgery.made.append(
                gs.Node("Gather", node, {"axis": axis}, [op.node.inputs[linear.input], indices], [picked])
            )
        op.node.inputs[linear.input] = surgery.sliced[key]
    if len(narrow.spread) > narrow.outputs.sum():
        rewriter.gather_output(narrow.spread, axis)


def _slice_weight(surgery: Surgery, tensor: gs.Tensor, weight: Array, linear: Linear, cut: _Cut) -> gs.Tensor:
    """The weight where it only loses slices."""
    first, second = (cut.keep_in, cut.keep_out) if linear.input_first else (cut.keep_out, cut.keep_in)
    if linear.groups == 1:
        axes = linear.layout or (0, 1)
        return surgery.slice(tensor, {axes[0]: first, axes[1]: second})
    rows, columns = cut.keep_out.reshape(linear.groups, -1), cut.keep_in.reshape(linear.groups, -1)
    alive = rows.any(axis=1) | columns.any(axis=1)
    if rows[alive].all() and columns[alive].all():
        return surgery.slice(tensor, {0: first})
    name = surgery.constants.root(tensor.name)
    key = (name, cut.keep_in.tobytes(), cut.keep_out.tobytes())
    if key not in surgery.sliced:
        node = surgery.constants.quantised(name)
        if node is None:
            surgery.sliced[key] = surgery.own(name, _layout(part(linear, weight, cut.keep_in, cut.keep_out), linear))
        else:
            surgery.sliced[key] = _slice_stored(surgery, node, linear, cut)
    return surgery.sliced[key]


def _slice_stored(surgery: Surgery, node: gs.Node, linear: Linear, cut: _Cut) -> gs.Tensor:
    """A quantised weight of a grouped layer, which stays so."""
    stored = surgery.constants.get(node.inputs[0].name)
    assert stored is not None
    whole = surgery.weights.add(node.inputs[0].name, _layout(part(linear, stored, cut.keep_in, cut.keep_out), linear))
    return surgery.dequantise(node, whole, cut.keep_out)


def _new_weight(surgery: Surgery, tensor: gs.Tensor, weight: Array, linear: Linear, cut: _Cut) -> gs.Tensor:
    """The weight where it is scaled, or takes up constant inputs, or is one value throughout."""
    scale = None if linear.scale is None else linear.scale[cut.keep_out]
    if is_uniform(weight) and cut.standing is None and (scale is None or (scale == scale[0]).all()):
        shape = shape_after(linear, weight.shape, cut.keep_in, cut.keep_out)
        if shape == weight.shape and scale is None:
            return tensor
        return _uniform(
            surgery, tensor.name, shape, weight.flat[0] * weight.dtype.type(1 if scale is None else scale[0])
        )
    new = part(linear, weight, cut.keep_in, cut.keep_out)
    rows = (*new.shape[:2], *(1,) * (new.ndim - 2))
    factor = weight.dtype.type(1) if scale is None else scale.astype(weight.dtype).reshape(rows)
    new *= factor
    if cut.standing is not None:
        extra = _merged(linear, weight, cut, cut.standing)
        extra = extra if scale is None else extra * scale.reshape((-1,) + (1,) * (extra.ndim - 1))
        new[0][:, int(cut.keep_in[: cut.standing].sum())] += extra.astype(weight.dtype)
    new += weight.dtype.type(0)  # -0.0 becomes +0.0
    return surgery.own(tensor.name, _layout(new, linear))


def _merged(linear: Linear, weight: Array, cut: _Cut, standing: int) -> Array:
    """What the constant inputs that go contribute through the one that stands for them, (outputs, …)."""
    columns = np.nonzero(cut.gone & linear.kernel[0][cut.rows].any(axis=0))[0]
    ratio = cut.source.value[columns] / cut.source.value[standing]
    taps = kernels(weight, cut.rows, columns, linear.input_first).astype(np.float64)
    return np.tensordot(ratio, taps, axes=(0, 1))


def part(linear: Linear, weight: Array, keep_in: Mask, keep_out: Mask) -> Array:
    """The weights that stay, a copy as (groups, outputs per group, inputs per group, …); `weight` as of `view`."""
    rows, columns = keep_out.reshape(linear.groups, -1), keep_in.reshape(linear.groups, -1)
    if linear.groups == 1:
        return kernels(weight, np.nonzero(rows[0])[0], np.nonzero(columns[0])[0], linear.input_first)[None]
    view = by_group(weight, linear.groups, linear.input_first)
    alive = np.nonzero(rows.any(axis=1) | columns.any(axis=1))[0]
    if rows[alive].all() and columns[alive].all():
        return view[alive]
    return np.stack([view[g][rows[g]][:, columns[g]] for g in alive])


def _layout(kept: Array, linear: Linear) -> Array:
    """From (groups, outputs, inputs, …) to the layout of the operator's weight."""
    kept = kept.swapaxes(1, 2) if linear.input_first else kept
    return np.ascontiguousarray(kept.reshape((kept.shape[0] * kept.shape[1], *kept.shape[2:])))


def shape_after(linear: Linear, shape: tuple[int, ...], keep_in: Mask, keep_out: Mask) -> tuple[int, ...]:
    """The shape of a weight once channels are cut."""
    rows = keep_out.reshape(linear.groups, -1).sum(axis=1)
    columns = keep_in.reshape(linear.groups, -1).sum(axis=1)
    alive, most_out, most_in = int(((rows > 0) | (columns > 0)).sum()), int(rows.max()), int(columns.max())
    leading = (alive * most_in, most_out) if linear.input_first else (alive * most_out, most_in)
    if not linear.layout:
        return (*leading, *shape[2:])
    after = dict(zip(linear.layout, leading, strict=False))
    return tuple(after.get(axis, size) for axis, size in enumerate(shape))


def is_uniform(weight: Array) -> bool:
    """Whether an array is one value throughout, and takes no memory: the output of ConstantOfShape."""
    return weight.size > 1 and all(stride == 0 for stride in weight.strides)


def _uniform(surgery: Surgery, name: str, shape: tuple[int, ...], value: Array) -> gs.Tensor:
    """A weight of one value throughout stays a ConstantOfShape, of the new shape."""
    weights = surgery.weights
    fill = gs.Constant(weights.name(f"{name}_value"), np.asarray(value).reshape(1))
    result, sizes = gs.Variable(weights.name(name)), weights.add(f"{name}_shape", np.asarray(shape, np.int64))
    surgery.made.append(gs.Node("ConstantOfShape", weights.name(f"{name}_node"), {"value": fill}, [sizes], [result]))
    return result


def _write_bias(
    surgery: Surgery, op: Op, linear: Linear, cut: _Cut, weight: Array, old: Array | None, rewriter: Rewriter
) -> None:
    node = op.node
    if linear.step is not None and cut.gone.any():
        _write_whole_bias(surgery, op, linear, cut, weight)
        return
    if not linear.plain_bias:
        if linear.bias is not None and old is not None and old.size > 1:
            node.inputs[linear.bias] = surgery.slice(node.inputs[linear.bias], {old.ndim - 1: cut.keep_out})
        return
    value = bias_vector(linear, old)[cut.keep_out]
    if cut.gone.any() and not linear.padded:
        value = value + folded(linear, weight, cut.rows, cut.gone, cut.source.value)
    same = old is not None and old.size == len(value) and np.array_equal(value, old.reshape(-1).astype(np.float64))
    if same or (old is None and not value.any()):
        return
    new = value.astype(weight.dtype)
    if linear.bias is None:  # MatMul has no bias of its own
        whole = gs.Variable(surgery.weights.name(f"{op.output}_unbiased"))
        added = surgery.weights.add(f"{op.output}_bias", new.reshape(-1, *(1,) * linear.trailing))
        name = surgery.weights.name(f"{op.output}_add")
        rewriter.after.append(gs.Node("Add", name, {}, [whole, added], [node.outputs[0]]))
        surgery.biases += rewriter.after
        node.outputs[0] = whole
        return
    while len(node.inputs) <= linear.bias:
        node.inputs.append(gs.Variable.empty())
    stem = f"{op.name(linear.weight)}_bias" if old is None else op.name(linear.bias)
    if is_uniform(weight) and len(new) > 1 and (new == new[0]).all():
        node.inputs[linear.bias] = _uniform(surgery, stem, new.shape, new[0])
    else:
        node.inputs[linear.bias] = surgery.own(stem, new)
    if linear.bias_gain != 1:
        node.attrs["beta"] = 1.0


def _write_whole_bias(surgery: Surgery, op: Op, linear: Linear, cut: _Cut, weight: Array) -> None:
    """A quantised bias with what the constants that go add to it, in whole steps; made where there was none."""
    assert linear.step is not None and linear.bias is not None
    step = linear.step[cut.keep_out]
    steps = np.rint(folded(linear, weight, cut.rows, cut.gone, cut.source.value) / step).astype(np.int64)
    old = surgery.constants.quantised(op.name(linear.bias)) if op.has(linear.bias) else None
    if old is None:
        axis = {"axis": 0} if op.opset >= 13 else {}
        scale = surgery.weights.add(f"{op.output}_scale", np.asarray(step if axis else step[0], np.float32))
        result = gs.Variable(f"{op.output}_bias")
        old = gs.Node("DequantizeLinear", "", axis, [gs.Variable.empty(), scale], [result])  # as if there had been one
        stored = surgery.weights.add(f"{op.output}_steps", steps.astype(np.int32))
        result = surgery.dequantise(old, stored, np.ones(0, np.bool_))
    else:
        whole = surgery.constants.get(old.inputs[0].name)
        assert whole is not None
        steps += whole.reshape(-1)[cut.keep_out]
        stored = surgery.weights.add(old.inputs[0].name, steps.astype(np.int32))
        result = surgery.dequantise(old, stored, cut.keep_out)
    while len(op.node.inputs) <= linear.bias:
        op.node.inputs.append(gs.Variable.empty())
    op.node.inputs[linear.bias] = result
