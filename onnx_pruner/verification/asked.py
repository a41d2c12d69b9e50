"""What a graph asks of its inputs, beyond type and shape: an input may be a size, a count, an axis or a threshold.

Such inputs are not drawn at random: a Tile of a hundred repeats on each axis takes all memory, and most shapes fit no
Reshape. What is not known here is drawn like any other number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_shift.onnx_pruner.verification.engines import Array

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where an input is read: its own shape, the shapes of what the node reads beside it and of what it puts out."""

    node: onnx.NodeProto
    shape: Sizes
    shapes: Mapping[str, Sizes]
    outputs: Mapping[str, Sizes]

    @property
    def count(self) -> int:
        """How many numbers the input has."""
        return int(np.prod(self.shape))

    @property
    def data(self) -> Sizes | None:
        return self.shapes.get(self.node.input[0])

    @property
    def made(self) -> Sizes | None:
        return self.outputs.get(self.node.output[0])

    def attribute(self, name: str, default: int) -> int:
        found = next((a for a in self.node.attribute if a.name == name), None)
        return default if found is None else int(onnx.helper.get_attribute_value(found))


Filler = Callable[[Place, np.random.Generator], object]


def _ones(place: Place, rng: np.random.Generator) -> object:
    return np.ones(place.shape)


def _one_or_two(place: Place, rng: np.random.Generator) -> object:
    return rng.integers(1, 3, place.shape)


def _none_or_one(place: Place, rng: np.random.Generator) -> object:
    return rng.integers(0, 2, place.shape)


def _pads(place: Place, rng: np.random.Generator) -> object:
    """None or one at each end; none at an axis of one element, which has nothing to reflect."""
    data = place.data or ()
    wide = np.asarray([size > 1 for size in data] * 2 if 2 * len(data) == place.count else True)
    return rng.integers(0, 2, place.shape) * wide


def _nothing(place: Place, rng: np.random.Generator) -> object:
    return np.zeros(place.shape)


def _axes(place: Place, rng: np.random.Generator) -> object:
    return np.arange(place.count).reshape(place.shape)


def _single_axes(place: Place, rng: np.random.Generator) -> object:
    single = [axis for axis, size in enumerate(place.data or ()) if size == 1]
    return single[: place.count] if len(single) >= place.count else _axes(place, rng)


def _reshape(place: Place, rng: np.random.Generator) -> object:
    if place.made is not None and len(place.made) == place.count:
        return place.made
    return [-1] + [1] * (place.count - 1)


def _made(place: Place, rng: np.random.Generator) -> object:
    """The shape that the graph states for the result, or else ones."""
    return place.made if place.made is not None and len(place.made) == place.count else np.ones(place.shape)


def _ends(place: Place, rng: np.random.Generator) -> object:
    return np.full(place.shape, min(place.data or (2,)) or 1)


def _slice_axes(place: Place, rng: np.random.Generator) -> object:
    return _axes(place, rng)


def _parts(place: Place, rng: np.random.Generator) -> object:
    """Sizes that add up to that of the axis."""
    data, axis = place.data, place.attribute("axis", 0)
    size = data[axis] if data else place.count
    if not place.shape:
        return 1
    least, more = divmod(size, max(place.count, 1))
    return [least + (index < more) for index in range(place.count)]


def _resized(place: Place, rng: np.random.Generator) -> object:
    axes = next((list(a.ints) for a in place.node.attribute if a.name == "axes"), None)
    if place.made is None:
        return np.full(place.shape, 4)
    return [place.made[axis] for axis in axes] if axes else place.made


def _scales(place: Place, rng: np.random.Generator) -> object:
    axes = next((list(a.ints) for a in place.node.attribute if a.name == "axes"), None)
    if place.data is None or place.made is None or len(place.data) != len(place.made):
        return np.full(place.shape, 1.0)
    ratios = [after / before for before, after in zip(place.data, place.made, strict=True)]
    return [ratios[axis] for axis in axes] if axes else ratios


def _region(place: Place, rng: np.random.Generator) -> object:
    half = place.count // 2
    return [0.0] * half + [1.0] * (place.count - half)


def _grid_size(place: Place, rng: np.random.Generator) -> object:
    """Batch, channels and image of an AffineGrid."""
    batch = place.data[0] if place.data else 1
    return [batch, 2] + [4] * (place.count - 2)


def _image(place: Place, rng: np.random.Generator) -> object:
    return place.made[2:] if place.made is not None else np.full(place.shape, 4)


def _block(place: Place, rng: np.random.Generator) -> object:
    """A block of Col2Im: as many elements as there are rows per channel, all on one axis that they fit on."""
    made, data = place.made, place.data
    if made is None or data is None:
        return np.ones(place.shape)
    rows = data[1] // max(made[1], 1)
    found = [1] * place.count
    for axis in reversed(range(place.count)):
        found[axis] = next((k for k in range(min(rows, made[2 + axis]), 0, -1) if rows % k == 0), 1)
        rows //= found[axis]
    return found


def _of(value: float) -> Filler:
    return lambda place, rng: np.full(place.shape, value)


def _below_time(place: Place, rng: np.random.Generator) -> object:
    return np.full(place.shape, 1)


_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
               "ReduceProd", "ReduceSum", "ReduceSumSquare")  # fmt: skip
FILLERS: Mapping[tuple[str, int], Filler] = {
    ("Reshape", 1): _reshape,
    ("Expand", 1): _made,
    ("ConstantOfShape", 0): _one_or_two,
    ("CenterCropPad", 1): _made,
    ("MaxUnpool", 2): _made,
    ("Tile", 1): _one_or_two,
    ("Pad", 1): _pads,
    ("Pad", 3): _axes,
    ("Upsample", 1): _scales,
    ("Resize", 1): _region,
    ("Resize", 2): _scales,
    ("Resize", 3): _resized,
    ("Slice", 1): _nothing,
    ("Slice", 2): _ends,
    ("Slice", 3): _slice_axes,
    ("Slice", 4): _ones,
    ("Split", 1): _parts,
    ("SplitToSequence", 1): _parts,
    ("Squeeze", 1): _single_axes,
    ("Unsqueeze", 1): _axes,
    **{(name, 1): _axes for name in _REDUCTIONS},
    ("CumSum", 1): _nothing,
    ("CumProd", 1): _nothing,
    ("TopK", 1): _ones,
    ("OneHot", 1): _of(10),
    ("Range", 0): _nothing,
    ("Range", 1): _of(5),
    ("Range", 2): _ones,
    ("Loop", 0): _of(3),
    ("Trilu", 1): _none_or_one,
    ("AffineGrid", 1): _grid_size,
    ("Col2Im", 1): _image,
    ("Col2Im", 2): _block,
    ("NonMaxSuppression", 2): _of(10),
    ("NonMaxSuppression", 3): _of(0.5),
    ("NonMaxSuppression", 4): _of(0.1),
    ("Dropout", 1): _of(0.5),
    ("RoiAlign", 2): _nothing,
    ("MaxRoiPool", 1): _nothing,
    ("ReverseSequence", 1): _below_time,
    ("SequenceAt", 1): _nothing,
    ("SequenceErase", 1): _nothing,
    ("SequenceInsert", 2): _nothing,
    ("BlackmanWindow", 0): _of(8),
    ("HammingWindow", 0): _of(8),
    ("HannWindow", 0): _of(8),
    ("DFT", 1): _of(4),
    ("DFT", 2): _ones,
    ("STFT", 1): _of(2),
    ("STFT", 3): _of(4),
}
#: Operators that a size may pass before it is read.
_ON_THE_WAY = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Identity", "Max", "Min", "Mul", "Neg", "Reshape", "Slice", "Squeeze",
     "Sub", "Unsqueeze"}
)  # fmt: skip


def fillers(graph: onnx.GraphProto, inputs: Sequence[str]) -> dict[str, tuple[onnx.NodeProto, Filler]]:
    """Return how to fill the inputs that a node reads as a size, and that node."""
    found: dict[str, tuple[onnx.NodeProto, Filler]] = {}
    source = {name: name for name in inputs}  # what a small tensor comes from
    direct = set(inputs)
    for node in graph.node:
        for index, name in enumerate(node.input):
            filler = FILLERS.get((node.op_type, index))
            if filler is not None and name in source:
                found.setdefault(source[name], (node, filler if name in direct else _one_or_two))
        if node.op_type in _ON_THE_WAY:
            origin = next((source[name] for name in node.input if name in source), None)
            if origin is not None:
                source[node.output[0]] = origin
                if node.op_type in ("Cast", "Identity") and node.input[0] in direct:
                    direct.add(node.output[0])
    return found


def fill(
    node: onnx.NodeProto,
    filler: Filler,
    shape: Sizes,
    shapes: Mapping[str, Sizes],
    outputs: Mapping[str, Sizes],
    rng: np.random.Generator,
    dtype: np.dtype[np.generic],
) -> Array:
    """Return values of `shape` for an input that `node` reads as a size; `shapes` are those of the graph's inputs."""
    values = np.asarray(filler(Place(node, shape, shapes, outputs), rng), np.float64)
    return (values if values.shape == shape else np.resize(values, shape)).astype(dtype)
