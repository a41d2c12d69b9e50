"""Two changes of the graph before analysis: BatchNormalization folds into the layer before it, and channel shuffles
written as Reshape–Transpose–Reshape become one node.

Folding: BN(W·x + b) = (s·W)·x + (s·b + t) with s = gamma / sqrt(variance + epsilon), t = beta − s·mean. Only s and t
are worked out here; the weights are scaled when they are written, after slicing. A gamma of 0 is a zero filter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.network import Array, Network, Shape
from onnx_shift.onnx_pruner.layouts import chains, stand_ins
from onnx_shift.onnx_pruner.op import Op, Values
from onnx_shift.onnx_pruner.rules.linear import batch_norm_affine, by_group
from onnx_shift.onnx_pruner.rules.reshape import group_of

FOLDABLE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_PRECISION = {"float16": 2**-10, "bfloat16": 2**-7}


@dataclass
class Fused:
    """What was folded: (scale, shift) by output name of the layer, and shuffles by output name with their own nodes."""

    batch_norms: dict[str, tuple[Values, Values]] = field(default_factory=dict)
    shuffles: dict[str, list[gs.Node]] = field(default_factory=dict)
    views: dict[str, list[gs.Node]] = field(
        default_factory=dict
    )  # what stands behind a shuffle until its nodes are back


def fuse(network: Network, constants: Constants, leave: frozenset[str] = frozenset()) -> Fused:
    """Edit the graph's node list in place; nothing else is touched. BatchNormalizations that put out what `leave` names
    stay.
    """
    fused = Fused()
    readers = _readers(network)
    users = constants.readers()
    gone: set[int] = set()
    for node in network.graph.nodes:
        foldable = node.op == "BatchNormalization" and node.outputs[0].name not in leave
        if foldable and _fold(node, network, constants, fused, readers, users):
            gone.add(id(node))
    replaced: dict[int, gs.Node] = {}
    for node in network.graph.nodes:
        if node.op == "Transpose" and (found := _shuffle(node, network, constants, readers)) is not None:
            nodes, stand_in = found
            fused.shuffles[stand_in.outputs[0].name] = nodes
            replaced[id(nodes[2])] = stand_in
            gone.update(id(n) for n in nodes[:2])
    network.graph.nodes[:] = [replaced.get(id(n), n) for n in network.graph.nodes if id(n) not in gone]
    _replace_chains(network, constants, fused)
    return fused


def _replace_chains(network: Network, constants: Constants, fused: Fused) -> None:
    """Put what chains of layout nodes do in their place."""
    gone: set[int] = set()
    replaced: dict[int, list[gs.Node]] = {}
    for chain in chains(network, constants, _readers(network)):
        gone.update(map(id, chain.nodes))
        for leaf in chain.leaves:
            nodes, original = stand_ins(chain, leaf, network, constants), chain.towards(leaf)
            fused.shuffles[nodes[0].outputs[0].name] = original
            fused.views[nodes[0].outputs[0].name] = nodes[1:]
            replaced.setdefault(id(original[-1]), []).extend(nodes)
    if gone:
        every = [new for node in network.graph.nodes for new in replaced.get(id(node), [node])]
        network.graph.nodes[:] = [node for node in every if id(node) not in gone]


def _readers(network: Network) -> Mapping[str, list[gs.Node]]:
    readers: dict[str, list[gs.Node]] = {}
    for node in network.graph.nodes:
        for tensor in node.inputs:
            readers.setdefault(tensor.name, []).append(node)
    return readers


def _sole_reader(name: str, network: Network, readers: Mapping[str, list[gs.Node]]) -> bool:
    return len(readers.get(name, [])) == 1 and name not in network.captured and name not in network.outputs


def _fold(
    node: gs.Node,
    network: Network,
    constants: Constants,
    fused: Fused,
    readers: Mapping[str, list[gs.Node]],
    users: Mapping[str, int],
) -> bool:
    """Fold one BatchNormalization into the layer before it, if that is all it does; returns whether it did."""
    name = node.inputs[0].name
    layer = constants.producers.get(name)
    if layer is None or layer.op not in FOLDABLE or not _sole_reader(name, network, readers):
        return False
    affine = batch_norm_affine(Op.of(node, network, constants, {}))
    weight = constants.get(layer.inputs[1].name)
    bias = layer.inputs[2].name if len(layer.inputs) > 2 else ""
    if (
        affine is None
        or weight is None
        or (bias and constants.get(bias) is None)
        or users[constants.root(layer.inputs[1].name)] > 1
    ):
        return False
    if not all(np.isfinite(part).all() for part in affine) or len(affine[0]) != _outputs(layer, weight):
        return False
    quantised = any(constants.is_widened(n) for n in (layer.inputs[1].name, bias))
    if quantised or not _representable(layer, weight, affine[0]):
        return False
    if layer.op == "MatMul" and len(network.shapes.get(name, ())) != 2:
        return False
    scale, shift = affine
    before = fused.batch_norms.pop(name, None)
    if before is not None:
        scale, shift = scale * before[0], shift + scale * before[1]
    layer.outputs[0] = node.outputs[0]
    constants.producers[node.outputs[0].name] = layer
    fused.batch_norms[node.outputs[0].name] = scale, shift
    return True


def _by_output(layer: gs.Node, weight: Array) -> Array:
    """A view (groups, outputs per group, inputs per group, …) of a layer's weight."""
    input_first = not (layer.op == "Conv" or (layer.op == "Gemm" and layer.attrs.get("transB", 0)))
    return by_group(weight, layer.attrs.get("group", 1) if layer.op == "ConvTranspose" else 1, input_first)


def _outputs(layer: gs.Node, weight: Array) -> int:
    return prod(_by_output(layer, weight).shape[:2]) if weight.ndim >= 2 else -1


def _representable(layer: gs.Node, weight: Array, scale: Values) -> bool:
    """Whether the scaled weight loses no precision in its type; a weight of one value throughout must stay that."""
    if all(stride == 0 for stride in weight.strides):
        return bool((scale == scale[0]).all())
    if weight.dtype.itemsize >= 4:
        return True
    view = _by_output(layer, weight)
    exact = view.reshape(len(scale), -1).astype(np.float64) * scale[:, None]
    with np.errstate(all="ignore"):
        error = np.abs(exact.astype(weight.dtype).astype(np.float64) - exact).max(axis=1, initial=0)
    largest = np.abs(exact).max(axis=1, initial=0)
    return bool((error <= largest * _PRECISION.get(weight.dtype.name, 0)).all())


def _shuffle(
    node: gs.Node, network: Network, constants: Constants, readers: Mapping[str, list[gs.Node]]
) -> tuple[list[gs.Node], gs.Node] | None:
    """(the three nodes, their stand-in) when Reshape–Transpose–Reshape permutes the channels on one axis alone."""
    first = constants.producers.get(node.inputs[0].name)
    after = readers.get(node.outputs[0].name, [])
    if first is None or first.op != "Reshape" or len(after) != 1 or after[0].op != "Reshape":
        return None
    last = after[0]
    if not all(_sole_reader(t.name, network, readers) for t in (node.inputs[0], node.outputs[0])):
        return None
    start, middle = network.shapes.get(first.inputs[0].name), network.shapes.get(node.inputs[0].name)
    moved, end = network.shapes.get(node.outputs[0].name), network.shapes.get(last.outputs[0].name)
    if start is None or middle is None or moved is None or end is None or len(start) != len(end):
        return None
    found = _permutation(start, middle, node.attrs.get("perm") or list(range(len(middle)))[::-1], moved, end)
    if found is None:
        return None
    axis, source = found
    stand_in = gs.Node("ChannelShuffle", last.name, {"axis": axis, "source": source})
    return [first, node, last], _connected(stand_in, first, last)


def _connected(stand_in: gs.Node, first: gs.Node, last: gs.Node) -> gs.Node:
    # Plain references, not graphsurgeon's synchronised lists' back links: the three nodes keep theirs.
    stand_in.inputs.append(first.inputs[0])
    list.append(stand_in.outputs, last.outputs[0])
    return stand_in


def _permutation(
    start: Shape, middle: Shape, perm: list[int], moved: Shape, end: Shape
) -> tuple[int, list[int]] | None:
    for axis, count in enumerate(start):
        group = group_of(start, middle, axis)
        if not isinstance(count, int) or count < 2 or group is None or group[1] - group[0] != 1:
            continue
        inside = list(range(group[2], group[3]))
        parts = [size for k in inside if isinstance(size := middle[k], int)]
        if len(parts) < 2 or len(parts) < len(inside) or sorted(perm[group[2] : group[3]]) != inside:
            continue
        outside = [p for p in perm if p not in inside]
        back = group_of(end, moved, axis)
        if outside != sorted(outside) or back != (axis, axis + 1, group[2], group[3]) or end[axis] != count:
            continue
        order = [p - group[2] for p in perm[group[2] : group[3]]]
        source = np.arange(count).reshape(parts).transpose(order).reshape(-1)
        return axis, source.tolist()
    return None
