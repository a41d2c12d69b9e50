"""What a processor asks of the counts of channels: whether zero channels that are kept back pay there.

On x86-64 onnxruntime's blocked kernels take whole groups of four channels and compute whole blocks; its builds for
64-bit Arm have no such kernels, so that every channel kept for alignment costs. Where a processor was measured
(`python -m benchmarks widths`), its table says which count is fastest, layer by layer.
"""

import json
import math
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from onnx_shift.onnx_pruner.graph.reading import PruneError

#: Counts at convolutions are kept at multiples of this where no table says more.
ALIGNMENTS: Mapping[str, int] = {"x86-64-avx512": 4, "x86-64-avx2": 4, "arm64": 1, "any": 4}
GROUP = 4  # channels: other counts leave the blocked layout
AS_FAST = 1.02  # times the time of the fastest: of these the smallest count is taken
HALF_BLOCKS = 1.05  # times that of the table, which shows chains: joins of tensors that fill no blocks take up to 1.1
DEPTH = 4  # layers behind one another, whose time tables state
#: So many times its cost, which is known coarsely, must a Gather save before a layer, and behind it: there the Add that
#: reads it is no longer computed with the layer (`python -m benchmarks gathers`).
PICKING_PAYS, SPREADING_PAYS = 3.0, 4.0
MOST_USED = 0.8  # of the channels: a Gather of more was not tried
MOSTLY_ZERO = 0.8  # of a layer's weights: from there on sparse kernels are faster in every network measured
GATHER = "gather"  # a kernel of tables: one of all channels in another order, the way out of blocks and back included
_TABLES = Path(__file__).parent / "targets"
_SAME_SIZE = 1.5  # a layer of so many times fewer pixels per side than the smallest measured was not measured
_SMALLEST_SIZE = 7  # pixels per side: behaves as what is smaller

Curve = Mapping[int, float]  # milliseconds by channels


@dataclass(frozen=True)
class Layer:
    """What a table tells layers apart by: the type computed in, kernel (3x3, 1x1, depthwise), pixels per side."""

    type: str
    kernel: str
    size: float


@dataclass(frozen=True, eq=False)
class Table:
    """Milliseconds of convolutions by type, kernel, pixels per side and channels, measured on one processor."""

    target: str
    processor: str
    onnxruntime: str
    block: int  # channels that the blocked layout holds together
    times_ms: Mapping[str, Mapping[str, Mapping[int, Curve]]]

    @cache  # noqa: B019  there is one table for each target
    def fastest(self, layers: tuple[Layer, ...], least: int, most: int) -> int | None:
        """The smallest of the fastest counts from `least` to `most` for layers that all have it; None where one of them
        was not measured.
        """
        curves = [self._curve(layer) for layer in layers]
        if not curves or any(curve is None or least < min(curve) > GROUP for curve in curves):
            return None
        counts = range(least, min(most, least + 2 * self.block) + 1)
        alike = Counter(layers).items()
        times = [sum(number * self._time_ms(layer, count) for layer, number in alike) for count in counts]
        return next(count for count, time in zip(counts, times, strict=True) if time <= AS_FAST * min(times))

    @property
    def knows_gathers(self) -> bool:
        return any(GATHER in kernels for kernels in self.times_ms.values())

    def picked(self, layer: Layer, side: float, inputs: int, outputs: int, needed: int) -> int:
        """How many inputs a convolution is best given, which needs so many of them: a few more, by a Gather over images
        of `side` pixels per side; or all.
        """
        count = self._useful(layer, inputs, needed)
        if count == inputs:
            return inputs
        saved = self._saved_ms(layer, inputs, outputs, count, inputs)
        cost = self._gather_ms(layer, side, inputs) * (1 + count / inputs) / 2
        return count if saved > PICKING_PAYS * cost else inputs

    def spread(self, layer: Layer, side: float, inputs: int, outputs: int, needed: int) -> int:
        """The like of the outputs, spread by a Gather to all."""
        count = self._useful(layer, outputs, needed)
        if count == outputs:
            return outputs
        saved = self._saved_ms(layer, inputs, outputs, count, outputs)
        return count if saved > SPREADING_PAYS * self._gather_ms(layer, side, outputs) else outputs

    def _useful(self, layer: Layer, channels: int, needed: int) -> int:
        """How many of its channels a convolution is fastest with that needs so many; all where nearly all are needed,
        or that was not measured.
        """
        count = None if needed > MOST_USED * channels else self.fastest((layer,), max(needed, 1), channels)
        return channels if count is None else count

    def _gather_ms(self, layer: Layer, side: float, channels: int) -> float:
        return self._time_ms(Layer(layer.type, GATHER, side), channels)

    def _saved_ms(self, layer: Layer, inputs: int, outputs: int, count: int, of: int) -> float:
        """What a convolution takes less with `count` of its inputs or outputs, in whole blocks."""
        blocks = -(-count // self.block) * self.block
        like = self.block * max(1, round(math.sqrt(inputs * outputs) / self.block))
        return max(0.0, 1 - blocks / of) * self._time_ms(layer, like)

    def _curve(self, layer: Layer) -> Curve | None:
        sizes = self.times_ms.get(layer.type, {}).get(layer.kernel)
        if not sizes or (min(sizes) > _SMALLEST_SIZE and layer.size * _SAME_SIZE < min(sizes)):
            return None
        return sizes[min(sizes, key=lambda size: abs(np.log(size / layer.size)))]

    def _time_ms(self, layer: Layer, count: int) -> float:
        """The time at a count of channels."""
        whole = self._whole(count) if layer.type == "float32" else 0
        widths, each = self._part(layer, whole)
        if not widths:  # where groups were not measured, they are computed as whole blocks
            count = -(-count // self.block) * self.block
            widths, each = self._part(layer, self.block)
        joins = HALF_BLOCKS if whole == GROUP else 1
        beyond = max(count, widths[0]) * max(count / widths[-1], 1)
        return float(np.interp(count, widths, each)) * beyond * joins

    @cache  # noqa: B019
    def _part(self, layer: Layer, whole: int) -> tuple[list[int], list[float]]:
        """Counts, and the time of each over the count. Of float32 whole blocks, whole groups and other counts are three
        curves; 0 stands for all. More channels take no less time, but for blocks that are not full.
        """
        curve = self._curve(layer) or {}
        widths = sorted(width for width in curve if not whole or self._whole(width) == whole)
        least = [min(curve[wider] for wider in widths if wider == width or wider > width >= self.block)
                 for width in widths]  # fmt: skip
        return widths, [time / width for time, width in zip(least, widths, strict=True)]

    def _whole(self, count: int) -> int:
        """Blocks or groups of how many channels a count fills."""
        return next(whole for whole in (self.block, GROUP, 1) if count % whole == 0)


@dataclass(frozen=True)
class Fit:
    """Which counts of channels to keep: multiples of `align`, or what a table says where it knows a layer; `quantised`:
    layers will compute in int8; `sparse_kernels`: those that are mostly zero on our kernels, which like any count.
    """

    align: int
    table: Table | None = None
    quantised: bool = False
    sparse_kernels: bool = False


def fit_of(target: str, *, quantised: bool = False) -> Fit:
    """Return which counts pay on `target` ("this": the processor at hand), perhaps once the network is quantised.

    Raises PruneError.
    """
    name = this_target() if target == "this" else target
    if name not in ALIGNMENTS:
        raise PruneError(f"{{target}}: there are this, {', '.join(ALIGNMENTS)}", target=target)
    return Fit(ALIGNMENTS[name], table_of(name), quantised)


@cache
def table_of(target: str) -> Table | None:
    """Return what was measured on a target, None where nothing was."""
    path = _TABLES / f"{target}.json"
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    times = {
        kind: {
            kernel: {int(size): {int(width): ms for width, ms in curve.items()} for size, curve in sizes.items()}
            for kernel, sizes in kernels.items()
        }
        for kind, kernels in stored["times_ms"].items()
    }
    return Table(target, stored["processor"], stored["onnxruntime"], stored["block"], times)


@cache
def this_target() -> str:
    """Return which of `ALIGNMENTS` the processor at hand is, "any" where none."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return "arm64"
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "any"
    known = (("avx512f", "x86-64-avx512"), ("avx2", "x86-64-avx2")) if machine in ("x86_64", "amd64") else ()
    return next((name for flag, name in known if flag in flags), "any")
