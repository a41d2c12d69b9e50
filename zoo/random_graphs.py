"""A random ONNX graph under construction: tensors whose shapes are known, weights full of zeros, and leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Tensors with more elements are not built upon: graphs must run in milliseconds.
LARGEST = 1 << 14
BATCH, CHANNELS, SIZE = 2, 3, 6


@dataclass(frozen=True)
class Tensor:
    """An activation: its name, its shape for a batch of `BATCH`, and its ONNX element type."""

    name: str
    shape: tuple[int, ...]
    kind: int

    @property
    def rank(self) -> int:
        return len(self.shape)


class Growing:
    """A graph that grows node by node. Generators take a tensor of the form they need and add nodes to it."""

    def __init__(self, seed: int, opset: int, dtype: Any = np.float32, density: float = 0.5) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset, self.dtype, self.density = opset, np.dtype(dtype), density
        self.kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.tensors: list[Tensor] = []
        self.used: set[str] = set()
        self.free_size = True  # until a node relies on the height and width
        self.free_batch = True
        self.volume = bool(self.rng.random() < 0.15)
        self.input = Tensor("x", (BATCH, CHANNELS, *[SIZE] * (3 if self.volume else 2)), self.kind)

    # -- choices

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    # -- tensors

    def take(self, fits: Callable[[Tensor], bool] = lambda tensor: True) -> Tensor:
        """Return a recent floating-point tensor that fits; a new convolution of the input when there is none."""
        fitting = [t for t in self.tensors if t.kind == self.kind and np.prod(t.shape) <= LARGEST and fits(t)]
        if not fitting:
            made = self.convolved(self.input)
            assert fits(made) or self.volume, "the form asked for is none that a new convolution has"
            return made
        return fitting[-1] if self.chance(0.6) else self.pick(fitting[-4:])

    def image(self, smallest: int = 1) -> Tensor:
        """Return a tensor (N, C, spatial...) with two channels and `smallest` positions a side at least."""
        return self.take(lambda t: 3 <= t.rank <= 5 and t.shape[1] > 1 and min(t.shape[2:]) >= smallest)

    def picture(self, smallest: int = 2) -> Tensor:
        """Return a tensor (N, C, H, W)."""
        fitting = [t for t in self.tensors if t.kind == self.kind and t.rank == 4 and t.shape[1] > 1]
        fitting = [t for t in fitting if min(t.shape[2:]) >= smallest and np.prod(t.shape) <= LARGEST]
        return self.pick(fitting[-3:]) if fitting else self.flat_convolved()

    def matrix(self) -> Tensor:
        """Return a tensor (N, features), by global pooling or by flattening."""
        x = self.take()
        if x.rank == 2:
            return x
        if x.rank < 2:
            return self.matrix_of(self.convolved(self.input))
        return self.matrix_of(x)

    def matrix_of(self, x: Tensor) -> Tensor:
        if self.chance(0.5) and 3 <= x.rank <= 5:
            x = self.add("GlobalAveragePool", [x], (*x.shape[:2], *[1] * (x.rank - 2)))
        else:
            self.free_size = self.free_size and all(size == 1 for size in x.shape[2:])
        return self.add("Flatten", [x], (x.shape[0], int(np.prod(x.shape[1:]))), axis=1)

    # -- nodes and weights

    def add(
        self, op: str, inputs: Sequence[Tensor | str], shape: Sequence[int], kind: int = 0, **attributes: Any
    ) -> Tensor:
        return self.add_all(op, inputs, [shape], kind, **attributes)[0]

    def add_all(
        self,
        op: str,
        inputs: Sequence[Tensor | str],
        shapes: Sequence[Sequence[int]],
        kind: int = 0,
        **attributes: Any,
    ) -> list[Tensor]:
        """Add a node with outputs of the given shapes; `kind` is their type where it is not that of the graph."""
        names = [one if isinstance(one, str) else one.name for one in inputs]
        made = [
            Tensor(f"t{len(self.nodes)}_{k}", tuple(int(size) for size in shape), kind or self.kind)
            for k, shape in enumerate(shapes)
        ]
        self.nodes.append(helper.make_node(op, names, [one.name for one in made], **attributes))
        self.used.update(names)
        self.tensors += made
        return made

    def constant(self, array: Any) -> str:
        """Add a constant: mostly an initializer, now and then a Constant node, or behind Identity."""
        name = f"w{len(self.weights)}_{len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(array), name)
        if self.chance(0.15) and (self.opset >= 9 or np.asarray(array).dtype.kind == "f"):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            return name
        self.weights.append(tensor)
        if self.chance(0.08):
            self.nodes.append(helper.make_node("Identity", [name], [f"{name}_i"]))
            return f"{name}_i"
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def floats(self, array: Any) -> str:
        return self.constant(np.asarray(array).astype(self.dtype))

    def sparse(self, shape: Sequence[int], out_axis: int = 0, in_axis: int = 1) -> np.ndarray:
        """Return weights with zero filters, zero slices and single zeros, some of them negative zeros."""
        fan_in = max(1, int(np.prod(shape)) // shape[out_axis])
        array = self.rng.standard_normal(tuple(shape)) / np.sqrt(fan_in * self.density + 0.5)
        for axis, share in ((out_axis, 0.35), (in_axis, 0.45)):
            if shape[axis] > 1:
                np.moveaxis(array, axis, 0)[self.rng.random(shape[axis]) < share] = 0
        if self.chance(0.5):
            array *= self.rng.random(tuple(shape)) < self.density
        return array

    def vector(self, count: int, zeros: float = 0.3) -> np.ndarray:
        """Return one value per channel, some zero: a bias."""
        return self.rng.standard_normal(count) * (self.rng.random(count) >= zeros)

    def convolved(self, x: Tensor, kernel: int | None = None) -> Tensor:
        """Return a convolution of any kind that preserves the spatial size."""
        width, k = self.between(3, 12), kernel or self.pick([1, 3])
        weight = self.floats(self.sparse((width, x.shape[1], *[k] * (x.rank - 2))))
        bias = [self.floats(self.vector(width))] if self.chance(0.8) else []
        shape = (x.shape[0], width, *x.shape[2:])
        return self.add(
            "Conv",
            [x, weight, *bias],
            shape,
            kernel_shape=[k] * (x.rank - 2),
            pads=[k // 2] * 2 * (x.rank - 2),
        )

    def flat_convolved(self) -> Tensor:
        """Return a convolution (N, C, H, W) of the input; a volume is cut into its planes first."""
        x = self.input
        if self.volume:
            self.free_size = False
            x = self.add("Reshape", [x, self.ints(0, 0, SIZE, -1)], (*x.shape[:3], x.shape[3] * x.shape[4]))
        return self.convolved(x)

    # -- the end

    def finish(self) -> onnx.ModelProto:
        """Read leaves by a last layer or leave them as they are, make them the outputs, and return the model."""
        leaves = [t for t in self.tensors if t.name not in self.used]
        self.rng.shuffle(leaves)
        outputs = []
        for leaf in leaves[:4]:
            if leaf.kind == self.kind and self.chance(0.75) and np.prod(leaf.shape) <= 4 * LARGEST:
                if 3 <= leaf.rank <= 5:
                    leaf = self.convolved(leaf)
                elif leaf.rank == 2:
                    width = self.between(2, 5)
                    weight = self.floats(self.sparse((leaf.shape[1], width), 1, 0))
                    leaf = self.add("MatMul", [leaf, weight], (leaf.shape[0], width))
            outputs.append(leaf)
        dims: list[int | str] = list(self.input.shape)
        if self.free_batch and self.chance(0.7):
            dims[0] = "N"
        if self.free_size and self.chance(0.5):
            dims[2:] = [f"S{k}" for k in range(len(dims) - 2)]
        graph = helper.make_graph(
            self.nodes, "random",
            [helper.make_tensor_value_info("x", self.kind, dims)],
            [helper.make_tensor_value_info(one.name, one.kind, [None] * one.rank) for one in outputs],
            self.weights,
        )  # fmt: skip
        ir_version = 8 if self.opset <= 18 else 10
        return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", self.opset)])


def attribute_or_input(g: Growing, since: int, name: str, values: list[int]) -> tuple[list[str], dict[str, Any]]:
    """Return `values` the way the operator set wants them: later ones take as input what was an attribute."""
    return ([g.ints(*values)], {}) if g.opset >= since else ([], {name: values})
