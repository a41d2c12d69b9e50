"""Decide which channels go: a frozen value, worked out from the analysis alone.

A class of tied channels may go when nothing needs any of its members. Constant channels that a padded layer reads
(they cannot move into its bias) go when one other constant channel of the tensor stands for them. Then channels are
kept back, never taken away, until every constraint holds: no empty tensor but before a Concat, equal groups, aligned
counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_shift.onnx_pruner.analysis import MERGEABLE, NEEDED, Analysis
from onnx_shift.onnx_pruner.effect import Linear
from onnx_shift.onnx_pruner.graph.network import Shape
from onnx_shift.onnx_pruner.op import Index, Mask, Op
from onnx_shift.onnx_pruner.target import MOSTLY_ZERO, Fit, Layer, Table

BLOCKS = (16, 8)  # channels that onnxruntime's blocked layout holds together, by processor
#: A tensor of fewer channels than a block leaves that layout. Measured, one thread: up to half a block that
#: pays; on few positions up to a quarter; before a 1x1 convolution, which does too little work, never.
HALF_BLOCK, QUARTER_BLOCK = BLOCKS[0] // 2, BLOCKS[0] // 4
FEW_POSITIONS = 64
LARGE_IMAGE = 56.0  # pixels per side
CLOSE = 0.1  # a constant may stand for others at most this many times larger: rounding stays small


@dataclass(frozen=True, eq=False)
class Narrow:
    """Which inputs a layer picks by a Gather and which outputs it makes, and for each output that stays its place among
    those.
    """

    inputs: Mask
    outputs: Mask
    spread: Index


@dataclass(frozen=True, eq=False)
class Plan:
    """Which channels of each tensor stay, and which constant channel stands for those merged into it."""

    keep: Mapping[str, Mask]
    representative: Mapping[str, int]
    held_back: Mapping[int, str]  # class → why it stays although nothing needs it
    vanishing: frozenset[str]  # tensors of which nothing stays, nor of what only they are made of
    narrow: Mapping[str, Narrow] = field(default_factory=dict)  # output of a layer → which channels it deals with

    @property
    def cuts_anything(self) -> bool:
        return bool(self.narrow) or any(not mask.all() for mask in self.keep.values())


def make_plan(analysis: Analysis, fit: Fit) -> Plan:
    """The plan that cuts most while channel counts at convolutions are such as `fit` asks for."""
    count = int(analysis.classes.max(initial=-1)) + 1
    level = np.zeros(count, np.uint8)
    np.maximum.at(level, analysis.classes, analysis.need)
    cut = level != NEEDED
    representative, standing = _representatives(analysis, level)
    cut[standing] = False
    planner = _Planner(analysis, cut, dict.fromkeys(standing, "stands for the constant channels merged into it"))
    vanishing = planner.settle(fit)
    keep = {name: ~planner.cut[classes] for name, classes in planner.members.items()}
    return Plan(keep, representative, planner.held_back, vanishing)


def _representatives(analysis: Analysis, level: NDArray[np.uint8]) -> tuple[dict[str, int], list[int]]:
    """For each tensor with mergeable needs the channel that stands for them, and the classes kept for that alone."""
    open_tensors: dict[str, tuple[Index, Index]] = {}
    chosen: dict[str, int] = {}
    for name, facts in analysis.channels.items():
        numbers = analysis.numbers(name)
        classes = analysis.classes[numbers]
        merge = (analysis.need[numbers] == MERGEABLE) & (level[classes] == MERGEABLE)
        if not merge.any():
            continue
        size = np.abs(facts.value) * facts.constant
        good = np.nonzero(size >= CLOSE * size[merge].max())[0]
        stays = good[level[classes[good]] == NEEDED]
        if len(stays):
            chosen[name] = int(stays[np.argmax(size[stays])])
        else:
            good = good[merge[good]]
            order = np.argsort(-size[good], kind="stable")
            open_tensors[name] = good[order], classes[good[order]]
    standing: list[int] = []
    voters: dict[int, list[str]] = {}  # the open tensors that each class could stand for
    votes = np.zeros(len(level), np.int64)
    for name, (_, classes) in open_tensors.items():
        for number in np.unique(classes):
            voters.setdefault(int(number), []).append(name)
            votes[number] += 1
    while open_tensors:
        classes = next(iter(open_tensors.values()))[1]
        best = int(classes[np.argmax(votes[classes])])
        standing.append(best)
        for name in voters[best]:
            if name in open_tensors:
                channels, members = open_tensors.pop(name)
                chosen[name] = int(channels[np.argmax(members == best)])
                votes[np.unique(members)] -= 1
    return chosen, standing


@dataclass(frozen=True)
class _Measured:
    """The convolutions that read or make a tensor, and those at any tensor of the same channels: a residual stream."""

    own: tuple[Layer, ...]
    of_all: tuple[Layer, ...]


class _Planner:
    """Keeps classes back until every constraint holds; `cut` only ever loses members."""

    def __init__(self, analysis: Analysis, cut: Mask, held_back: dict[int, str]) -> None:
        self.analysis = analysis
        self.cut = cut
        self.held_back = held_back
        self.members = {name: analysis.classes[analysis.numbers(name)] for name in analysis.channels}
        self.sizes = np.bincount(analysis.classes, minlength=len(cut))  # how many channels each class has

    def settle(self, fit: Fit) -> frozenset[str]:
        """Hold every constraint; returns the tensors that vanish."""
        align, table = fit.align, fit.table
        blocks = BLOCKS if table is None else (table.block,)
        units, worthwhile = ({}, {}) if align == 1 else (self._units(align, blocks), self._worthwhile())
        free = self._at_sparse_layers() if fit.sparse_kernels else frozenset()
        units = {name: unit for name, unit in units.items() if name not in free}
        measured = self._measured(fit.quantised) if table is not None else {}
        while True:
            before = int(self.cut.sum())
            vanishing = self._vanishing()
            for name in self.members:
                if name not in vanishing:
                    self._reach(name, 1, "the last channel of its tensor")
            for op, effect in zip(self.analysis.ops, self.analysis.effects, strict=True):
                linear = effect.linear
                if linear is not None and linear.groups > 1 and not effect.ties:
                    self._even_groups(op.name(0), op.output, linear.kernel.shape, align)
            for name, unit in units.items():
                layers = measured.get(name) if unit == align else None
                if table is not None and layers is not None and self._reach_fastest(name, table, layers):
                    continue
                count = -(-self._kept(name) // unit) * unit
                blocked = len(self.members[name]) >= BLOCKS[0] > count
                if blocked and count > worthwhile.get(name, HALF_BLOCK):
                    self._reach(name, BLOCKS[0], f"fills a block of {BLOCKS[0]}: fewer channels take longer")
                else:
                    self._reach(name, count, f"keeps the count a multiple of {unit}")
            if int(self.cut.sum()) == before:
                return vanishing

    def _vanishing(self) -> frozenset[str]:
        """Tensors that lose every channel and that a Concat can do without, and all that only they are made of."""
        found: set[str] = set()
        read: set[str] = set()  # by who stays and cannot do without
        for op, effect in zip(reversed(self.analysis.ops), reversed(self.analysis.effects), strict=True):
            outputs = [name for name in op.output_names if name]
            if outputs and all(name in self.members and name not in read and not self._kept(name) for name in outputs):
                found.update(outputs)
            elif not effect.joins:
                read.update(op.input_names)
        return frozenset(found)

    def _reach_fastest(self, name: str, table: Table, layers: "_Measured") -> bool:
        """Keep as many channels of a tensor as its layers are fastest with; False where that was not measured."""
        least, most = self._kept(name), len(self.members[name])
        count = table.fastest(layers.own, least, most)
        if count is None:
            return False
        if least < count and least < table.block:  # a stream that fills no block is laid out in none: one of its many
            of_all = table.fastest(layers.of_all, least, most)  # layers alone is no reason for a block
            count = of_all if of_all is not None and of_all < table.block else count
        self._reach(name, count, "as measured, fewer channels take longer")
        return True

    def _measured(self, quantised: bool) -> dict[str, "_Measured"]:
        """The convolutions at each tensor, as tables know them; none where they do not know one of them."""
        own: dict[str, list[Layer]] = {}
        of_all: dict[bytes, list[Layer]] = {}
        unknown: set[str] = set()
        for op, effect in zip(self.analysis.ops, self.analysis.effects, strict=True):
            if effect.linear is None or op.type not in ("Conv", "ConvTranspose"):
                continue
            layer = measured_layer(op, effect.linear, quantised)
            for name in (op.name(0), op.output):
                if layer is None or name not in self.members:
                    unknown.add(name)
                else:
                    own.setdefault(name, []).append(layer)
                    of_all.setdefault(self._same(name), []).append(layer)
        return {
            name: _Measured(tuple(layers), tuple(of_all[self._same(name)]))
            for name, layers in own.items()
            if name not in unknown
        }

    def _at_sparse_layers(self) -> frozenset[str]:
        """Tensors of which every convolution is mostly zero, those at the same channels elsewhere included."""
        sparse: dict[str, bytes] = {}
        dense: set[bytes] = set()
        for op, effect in zip(self.analysis.ops, self.analysis.effects, strict=True):
            if effect.linear is None or op.type not in ("Conv", "ConvTranspose"):
                continue
            at = {name: self._same(name) for name in (op.name(0), op.output) if name in self.members}
            if _is_mostly_zero(op, effect.linear):
                sparse |= at
            else:
                dense.update(at.values())
        return frozenset(name for name, classes in sparse.items() if classes not in dense)

    def _units(self, align: int, blocks: tuple[int, ...]) -> dict[str, int]:
        """What the channel count of each tensor at a convolution must be a multiple of."""
        units: dict[str, int] = {}
        pointwise: set[bytes] = set()  # what 1x1 convolutions make
        for op, effect in zip(self.analysis.ops, self.analysis.effects, strict=True):
            if effect.linear is not None and op.type in ("Conv", "ConvTranspose"):
                units.update((name, align) for name in (op.name(0), op.output) if name in self.members)
                if op.output in self.members and _is_pointwise(op, effect.linear):
                    pointwise.add(self._same(op.output))
        for op in self.analysis.ops:
            counts = [len(self.members.get(name, ())) for name in (*op.input_names, op.output)]
            if op.type == "Concat" and all(counts) and counts[-1] == sum(counts[:-1]) and (op.rank(0) or 0) > 2:
                unit = _whole_blocks(counts[:-1], align, blocks)
                units.update((name, unit) for name in op.input_names if unit > 1)
            # A pool takes whole blocks only, else the layout is left: smaller 1x1 convolutions do not make up for that.
            elif op.type in ("MaxPool", "AveragePool") and counts[0] and self._same(op.name(0)) in pointwise:
                units[op.name(0)] = _whole_blocks(counts[:1], align, blocks)
        return units

    def _same(self, name: str) -> bytes:
        """What tensors of the same classes have in common."""
        return self.members[name].tobytes()

    def _worthwhile(self) -> dict[str, int]:
        """Up to how many channels less than a block pay, for tensors that a convolution reads."""
        most: dict[str, int] = {}
        for op, effect in zip(self.analysis.ops, self.analysis.effects, strict=True):
            if effect.linear is None or op.type != "Conv":
                continue
            sizes = (op.shape(0) or ())[2:]
            known = [size for size in sizes if isinstance(size, int)]
            few = len(known) == len(sizes) and math.prod(known) <= FEW_POSITIONS
            limit = 0 if _is_pointwise(op, effect.linear) else QUARTER_BLOCK if few else HALF_BLOCK
            most[op.name(0)] = min(limit, most.get(op.name(0), limit))
        return most

    def _kept(self, name: str) -> int:
        return int((~self.cut[self.members[name]]).sum())

    def _reach(self, name: str, count: int, why: str) -> None:
        """Keep classes of a tensor back until it has `count` channels, or all it ever had."""
        classes = self.members[name]
        while (missing := min(count, len(classes)) - self._kept(name)) > 0:
            self._keep(self._most_shared(classes[self.cut[classes]])[:missing], why)

    def _most_shared(self, classes: Index) -> Index:
        """Distinct classes, those with most members (over all tensors) first: one that serves many tensors
        costs least.
        """
        distinct, at = np.unique(classes, return_index=True)
        distinct = distinct[np.argsort(at)]
        return np.asarray(distinct[np.argsort(-self.sizes[distinct], kind="stable")])

    def _keep(self, classes: Index, why: str) -> None:
        self.cut[classes] = False
        self.held_back.update(dict.fromkeys((int(c) for c in classes), why))

    def _even_groups(self, source: str, target: str, shape: tuple[int, ...], align: int) -> None:
        """A grouped layer keeps equally many inputs in each group, and outputs too; a group is removed whole or not."""
        unit = 1 if align == 1 else _whole_blocks(shape[1:], 1, BLOCKS)
        sides = [self.members[name].reshape(shape[0], -1) for name in (source, target) if name in self.members]
        alive = np.logical_or.reduce([(~self.cut[side]).any(axis=1) for side in sides])
        if source not in self.members or target not in self.members:
            alive[:] = True
        for side in sides:
            while True:
                count = (~self.cut[side]).sum(axis=1)
                wanted = min(max(1, -(-count[alive].max(initial=0) // unit) * unit), side.shape[1])
                short = np.nonzero(alive & (count < wanted))[0]
                if not len(short):
                    break
                for g in short:
                    self._keep(side[g][self.cut[side[g]]][:1], "keeps the groups of a convolution equal")


def _is_pointwise(op: Op, linear: Linear) -> bool:
    return set((op.shape(linear.weight) or ())[2:]) == {1}


def _is_mostly_zero(op: Op, linear: Linear) -> bool:
    """Whether our kernels will compute a layer, as far as one can tell: by zeros beside empty filters and readers."""
    weight = op.constant(linear.weight)
    plain = op.type == "Conv" and linear.groups == 1 and linear.plain_weight
    if not plain or weight is None or weight.dtype != np.float32:
        return False
    kernel = linear.kernel[0]
    used = int(kernel.any(axis=1).sum() * kernel.any(axis=0).sum()) * math.prod(weight.shape[2:])
    return int(np.count_nonzero(weight)) <= (1 - MOSTLY_ZERO) * used


def side(shape: Shape | None) -> float:
    """Pixels per side of images; those of unknown size are large."""
    known = [size for size in (shape or ())[2:] if isinstance(size, int)]
    return max(math.sqrt(math.prod(known)), 1.0) if len(known) == 2 else LARGE_IMAGE


def measured_layer(op: Op, linear: Linear, quantised: bool) -> Layer | None:
    """A convolution as tables know it: in two dimensions, depthwise or plain."""
    shape = op.output_shape()
    if op.type != "Conv" or len(shape or ()) != 4 or (linear.groups > 1 and linear.kernel.shape[2] > 1):
        return None
    source = op.constants.producers.get(op.name(0))
    quantised |= not linear.plain_weight and source is not None and source.op == "DequantizeLinear"
    kernel = "depthwise" if linear.groups > 1 else "1x1" if _is_pointwise(op, linear) else "3x3"
    return Layer("int8" if quantised else "float32", kernel, side(shape))


def _whole_blocks(counts: Sequence[int], otherwise: int, blocks: tuple[int, ...]) -> int:
    """The largest block that all counts are multiples of: onnxruntime joins and groups fast only in whole blocks."""
    return next((block for block in blocks if all(count and count % block == 0 for count in counts)), otherwise)
