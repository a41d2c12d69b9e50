"""What a rule's rewrite may do to its node once channels are cut."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.graph.external import SMALLEST_MAPPED_BYTES
from onnx_shift.onnx_pruner.graph.names import free_name
from onnx_shift.onnx_pruner.graph.network import Array
from onnx_shift.onnx_pruner.op import Index, Mask, Op


@dataclass
class Weights:
    """Initializers written so far, by name; a name is taken once.

    They go straight into the new model: an array's memory is hot then, and free for the next one afterwards.
    """

    taken: set[str]
    model: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    written: dict[str, onnx.TensorProto] = field(default_factory=dict)
    #: Called once a large weight is written, so that what it was made of need not stay in memory.
    release: Callable[[], None] = lambda: None
    #: Constants that stay beside what was cut out of them, or are computed.
    copied: set[str] = field(default_factory=set)

    def name(self, stem: str) -> str:
        """A name that nothing in the graph has yet."""
        return free_name(stem, self.taken)

    def add(self, stem: str, array: Array) -> gs.Variable:
        """Write an initializer under a name of its own."""
        name = self.name(stem)
        self.replace(name, array)
        return gs.Variable(name)

    def replace(self, name: str, array: Array) -> None:
        """Write an initializer in the place of one that nothing else reads."""
        tensors = self.model.graph.initializer
        if array.dtype.kind in "fiub" and array.dtype.isnative:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            self.written[name] = tensors.add(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())
        else:
            tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
            self.written[name] = tensors[-1]
        if array.nbytes >= SMALLEST_MAPPED_BYTES:
            self.release()


@dataclass(frozen=True)
class Size:
    """What entry `position` of a shape vector computed at run time must say, unless it says one of `leave`."""

    position: int
    count: int
    leave: tuple[int, ...]
    length: int


@dataclass
class Rewriter:
    """One node being rewritten: which channels of its inputs and outputs stay, and ways to edit it."""

    op: Op
    keep: Mapping[str, Mask]
    weights: Weights
    sizes: dict[int, Size] = field(default_factory=dict)  # by input, for `sizes` to see to
    after: list[gs.Node] = field(default_factory=list)

    @property
    def node(self) -> gs.Node:
        return self.op.node

    def keep_in(self, index: int) -> Mask:
        return self.keep[self.op.name(index)]

    def keep_out(self, output: int) -> Mask:
        return self.keep[self.op.output_names[output]]

    def kept(self, output: int) -> int:
        """How many channels of an output stay."""
        return int(self.keep_out(output).sum())

    def kept_in(self, index: int) -> int:
        return int(self.keep_in(index).sum())

    def positions(self, index: int) -> Index:
        """The new position of each channel of an input that stays."""
        return np.asarray(np.cumsum(self.keep_in(index)) - 1)

    def set_input(self, index: int, array: Array) -> None:
        """Give input `index` a new constant, in a copy of its own."""
        old = self.op.name(index) if self.op.has(index) else f"{self.op.output}_{index}"
        while len(self.node.inputs) <= index:
            self.node.inputs.append(gs.Variable.empty())
        if self.op.has(index) and self.op.constants.is_initializer(root := self.op.constants.root(old)):
            self.weights.copied.add(root)
        self.node.inputs[index] = self.weights.add(old, array)

    def set_ints(self, index: int, attribute: str | None, values: Sequence[int]) -> None:
        """Integers that are an attribute in older opsets, an input in newer ones."""
        if attribute is not None:
            self.node.attrs[attribute] = list(values)
        else:
            self.set_input(index, np.asarray(values, np.int64))

    def patch_vector(self, index: int, position: int, count: int, leave: Sequence[int] = ()) -> None:
        """Make entry `position` of a shape vector say `count`, unless it says one of `leave`."""
        vector = self.op.constant(index)
        if vector is not None:
            if vector[position] not in leave and vector[position] != count:
                new = vector.astype(np.int64)
                new[position] = count
                self.set_input(index, new)
            return
        length = self.op.size(index, 0)
        if not isinstance(length, int):
            length = len(self.op.output_shape() or ())
        self.sizes[index] = Size(position, count, tuple(leave), length)

    def gather_output(self, picked: Index, axis: int) -> None:
        """Let a Gather along `axis` pick from what the node now puts out."""
        name = self.node.outputs[0].name
        whole = gs.Variable(self.weights.name(f"{name}_whole"))
        indices = self.weights.add(f"{name}_indices", picked.astype(np.int64))
        result = self.node.outputs[0]
        self.node.outputs[0] = whole
        self.after.append(
            gs.Node("Gather", self.weights.name(f"{name}_gather"), {"axis": axis}, [whole, indices], [result])
        )
