"""Chains of nodes that only lay elements out anew and pick some, such as channel shuffles and the parts of attention.

What such a chain does is found by following the number of every element through it. Where that amounts to picking
channels, and perhaps laying them out anew, the chain gives way to nodes that say so, for the analysis; `apply` puts the
chain back where nothing is cut.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import numpy as np
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.graph.constants import Constants, run_node
from onnx_shift.onnx_pruner.graph.network import Array, Network, Shape

PICKS = frozenset({"Gather", "GatherND", "Slice", "Split"})
MOVES = PICKS | {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
LARGEST = 1 << 22  # elements that are followed
#: Free sizes that are tried; a chain must do the same at all of them.
TRIED = ((2, 3, 5, 7), (3, 4, 7, 9))
Readers = Mapping[str, list[gs.Node]]


@dataclass(frozen=True)
class View:
    """Channels `source` of `axis` picked; then the shape, −1 for one that is left, and the order of axes, if any."""

    axis: int
    source: tuple[int, ...]
    shape: tuple[int, ...] = ()
    perm: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chain:
    """Nodes from one tensor on, and what each tensor that others read is made of."""

    start: str
    nodes: tuple[gs.Node, ...]
    leaves: Mapping[str, View]

    def towards(self, leaf: str) -> list[gs.Node]:
        """The nodes that make a leaf."""
        wanted, found = {leaf}, []
        for node in reversed(self.nodes):
            if any(tensor.name in wanted for tensor in node.outputs):
                wanted.add(node.inputs[0].name)
                found.append(node)
        return found[::-1]


def chains(network: Network, constants: Constants, readers: Readers) -> Iterator[Chain]:
    """Every chain that picks channels after it has split or moved them."""
    seen: set[int] = set()
    for node in network.graph.nodes:
        if node.op not in ("Reshape", "Transpose") or id(node) in seen:
            continue
        nodes = _closure(node, network, constants, readers)
        seen.update(map(id, nodes))
        kinds = {one.op for one in nodes}
        if kinds.isdisjoint(PICKS) or not {"Reshape", "Transpose"} <= kinds:
            continue
        chain = _follow(node.inputs[0].name, nodes, network, constants, readers)
        if chain is not None:
            yield chain


def _closure(start: gs.Node, network: Network, constants: Constants, readers: Readers) -> list[gs.Node]:
    """The nodes behind a first one that only move elements, in the order of the graph."""
    found, waiting = {id(start)}, [start]
    while waiting:
        node = waiting.pop()
        for tensor in node.outputs:
            for reader in readers.get(tensor.name, ()):
                known = all(constants.is_constant(t.name) or t.name in network.vectors
                            for t in reader.inputs[1:] if t.name)  # fmt: skip
                if reader.op in MOVES and reader.inputs[0].name == tensor.name and known and id(reader) not in found:
                    found.add(id(reader))
                    waiting.append(reader)
    return [node for node in network.graph.nodes if id(node) in found]


def _follow(start: str, nodes: list[gs.Node], network: Network, constants: Constants, readers: Readers) -> Chain | None:
    shape = network.shapes.get(start)
    if shape is None or None in shape or constants.is_constant(start):
        return None
    free = [size for size in shape if isinstance(size, str)]
    tried = [_run(start, nodes, dict(zip(free, sizes, strict=False)), network, constants) for sizes in TRIED]
    if None in tried:  # the sizes that the chain itself states may leave one for each that is free
        tried = [_run(start, nodes, dict.fromkeys(free, 1), network, constants)]
    runs = [run for run in tried if run is not None]
    if not runs:
        return None
    among = {id(node) for node in nodes}
    used: dict[int, gs.Node] = {}
    leaves: dict[str, View] = {}
    reached = {start}
    for node in nodes:
        if node.inputs[0].name not in reached:
            continue
        used[id(node)] = node
        for tensor in node.outputs:
            name = tensor.name
            if not name:
                continue
            if (
                len(runs[0].arrays.get(name, np.empty(0)).shape) == len(shape)
                and (pick := _pick(name, runs)) is not None
            ):
                leaves[name] = pick
                continue
            behind = readers.get(name, [])
            inside = bool(behind) and all(id(one) in among for one in behind)
            if inside and name not in network.outputs and name not in network.captured:
                reached.add(name)
            elif (view := _view(name, runs, shape)) is not None:
                leaves[name] = view
            else:
                return None
    if all(view.perm and len(view.source) == runs[0].shape[view.axis] for view in leaves.values()):
        return None  # nothing is picked: the rules know what happens
    return Chain(start, tuple(used.values()), leaves)


# --- numbers of elements ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """The number, in the first tensor, of every element of each tensor, at certain free sizes."""

    shape: tuple[int, ...]
    arrays: Mapping[str, Array]


def _run(
    start: str, nodes: list[gs.Node], sizes: Mapping[str, int], network: Network, constants: Constants
) -> _Run | None:
    given = network.shapes[start]
    if any(isinstance(size, str) and size not in sizes for size in given):
        return None
    shape = tuple(sizes[size] if isinstance(size, str) else cast(int, size) for size in given)
    if not 0 < prod(shape) <= LARGEST:
        return None
    arrays = {start: np.arange(prod(shape)).reshape(shape)}
    for node in nodes:
        if (array := arrays.get(node.inputs[0].name)) is None:
            return None
        results = _moved(node, array, sizes, network, constants)
        if results is None:
            return None
        arrays |= {tensor.name: result for tensor, result in zip(node.outputs, results, strict=False)}
    return _Run(shape, arrays)


def _moved(
    node: gs.Node, array: Array, sizes: Mapping[str, int], network: Network, constants: Constants
) -> list[Array] | None:
    try:
        if node.op == "Transpose":
            return [array.transpose(node.attrs.get("perm"))]
        if node.op == "Reshape":
            return [array.reshape(_target(node, array, sizes, network, constants))]
    except ValueError:
        return None
    feeds = {node.inputs[0].name: array}
    for tensor in node.inputs[1:]:
        value = constants.get(tensor.name) if tensor.name else None
        if tensor.name and value is None:
            return None
        if value is not None:
            feeds[tensor.name] = value
    results = run_node(node, feeds, network.opset)
    return None if results is None or None in [type(one) for one in results] else cast(list[Array], results)


def _target(node: gs.Node, array: Array, sizes: Mapping[str, int], network: Network, constants: Constants) -> list[int]:
    """The shape that a Reshape asks for. Raises ValueError when it is not known."""
    name = node.inputs[1].name
    value = constants.get(name)
    entries = network.vectors[name].entries if value is None else value.reshape(-1).tolist()
    found = [sizes.get(entry) if isinstance(entry, str) else -1 if entry is None else int(entry) for entry in entries]
    if None in found or found.count(-1) > 1:
        raise ValueError(name)
    copies = not node.attrs.get("allowzero", 0)
    return [array.shape[k] if size == 0 and copies else cast(int, size) for k, size in enumerate(found)]


def _channels(array: Array, shape: tuple[int, ...], axis: int) -> Array:
    return array // prod(shape[axis + 1 :]) % shape[axis]


def _axes(rank: int) -> list[int]:
    """Axes, those first that channels mostly lie on."""
    return sorted(range(rank), key=lambda axis: (axis != 1, axis != rank - 1, axis))


def _pick(name: str, runs: Sequence[_Run]) -> View | None:
    """How a tensor picks channels and does nothing else, at all sizes alike."""
    for axis in _axes(len(runs[0].shape)):
        found = {_pick_on(run, name, axis) for run in runs}
        if len(found) == 1 and (source := found.pop()) is not None and runs[0].shape[axis] > 1:
            return View(axis, source)
    return None


def _pick_on(run: _Run, name: str, axis: int) -> tuple[int, ...] | None:
    array, whole = run.arrays[name], np.arange(prod(run.shape)).reshape(run.shape)
    if array.shape[:axis] + array.shape[axis + 1 :] != run.shape[:axis] + run.shape[axis + 1 :] or not array.size:
        return None
    first = tuple(slice(None) if k == axis else 0 for k in range(array.ndim))
    source = _channels(array[first], run.shape, axis)
    return tuple(source.tolist()) if np.array_equal(whole.take(source, axis), array) else None


def _view(name: str, runs: Sequence[_Run], shape: Shape) -> View | None:
    """How a tensor is made of picked channels in another layout, at all sizes alike."""
    for axis in sorted(range(len(shape)), key=lambda axis: (axis != len(shape) - 1, axis != 1, axis)):
        found = [_view_on(run, name, axis) for run in runs]
        if None in found or runs[0].shape[axis] < 2:
            continue
        views = cast(list[View], found)
        alike = {(view.source, view.perm, len(view.shape)) for view in views}
        sizes = [_stated(k, [view.shape[k] for view in views], runs, shape, axis) for k in range(len(views[0].shape))]
        if len(alike) == 1 and sizes.count(-1) < 2:
            return View(axis, views[0].source, tuple(sizes), views[0].perm)
    return None


def _stated(k: int, sizes: list[int], runs: Sequence[_Run], shape: Shape, axis: int) -> int:
    """What a Reshape says of a size: a number, 0 for that of the tensor before, or −1 for what is left."""
    if k < axis and isinstance(shape[k], str) and sizes == [run.shape[k] for run in runs]:
        return 0
    return sizes[0] if (len(set(sizes)) == 1 and len(runs) > 1) or not any(isinstance(s, str) for s in shape) else -1


def _view_on(run: _Run, name: str, axis: int) -> View | None:
    array, whole = run.arrays[name], np.arange(prod(run.shape)).reshape(run.shape)
    if not array.size:
        return None
    source = np.unique(_channels(array, run.shape, axis))
    picked = whole.take(source, axis)
    if picked.size != array.size:
        return None
    places = np.searchsorted(picked.reshape(-1), array)
    if not np.array_equal(picked.reshape(-1)[places.reshape(-1) % places.size], array.reshape(-1)):
        return None
    origin = (0,) * array.ndim
    steps = [int(places[(*origin[:k], 1, *origin[k + 1 :])] - places[origin]) if size > 1 else 0
             for k, size in enumerate(array.shape)]  # fmt: skip
    order = sorted(range(array.ndim), key=lambda k: -steps[k])
    shape, perm = tuple(array.shape[k] for k in order), tuple(int(k) for k in np.argsort(order))
    if not np.array_equal(np.arange(places.size).reshape(shape).transpose(perm), places):
        return None
    return View(axis, tuple(source.tolist()), shape, perm)


# --- nodes that say what a chain does --------------------------------------------------------------------------


def stand_ins(chain: Chain, leaf: str, network: Network, constants: Constants) -> list[gs.Node]:
    """ChannelShuffle, and Reshape and Transpose where the channels are laid out anew; the last puts out the leaf."""
    view, last = chain.leaves[leaf], chain.towards(leaf)[-1]
    source = chain.nodes[0].inputs[0]
    result = next(tensor for tensor in last.outputs if tensor.name == leaf)
    attributes = {"axis": view.axis, "source": list(view.source)}
    pick = gs.Node("ChannelShuffle", f"{leaf}_channels", attributes, [source])
    if not view.perm:
        return [_putting_out(pick, result)]
    shape = list(network.shapes[chain.start])
    shape[view.axis] = len(view.source)
    known = network.shapes.get(leaf) or (None,) * len(view.perm)
    spread = tuple(known[view.perm.index(k)] for k in range(len(view.perm)))
    picked = _tensor(f"{leaf}_picked", tuple(shape), chain.start, network, constants)
    apart = _tensor(f"{leaf}_apart", spread, chain.start, network, constants)
    target = constants.add(f"{leaf}_shape", np.asarray(view.shape, np.int64))
    pick.outputs.append(picked)
    turn = gs.Node("Transpose", f"{leaf}_turned", {"perm": list(view.perm)}, [apart])
    return [pick, gs.Node("Reshape", f"{leaf}_spread", {}, [picked, target], [apart]), _putting_out(turn, result)]


def _putting_out(node: gs.Node, result: gs.Tensor) -> gs.Node:
    # A plain reference, not graphsurgeon's synchronised list's back link: the chain keeps its own.
    list.append(node.outputs, result)
    return node


def _tensor(stem: str, shape: Shape, like: str, network: Network, constants: Constants) -> gs.Variable:
    name = constants.free_name(stem)
    network.shapes[name] = shape
    network.types[name] = network.types.get(like, 0)
    return gs.Variable(name)
