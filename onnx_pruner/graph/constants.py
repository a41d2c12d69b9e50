"""Values of tensors that do not depend on the graph's inputs, evaluated when first asked for, never twice."""

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.graph.network import Array, Network, initializer_of, payload_bytes
from onnx_shift.onnx_pruner.graph.reading import PruneError
from onnx_shift.onnx_pruner.graph.vectors import as_array

LARGEST_ELEMENTS = 1 << 28  # a constant expression may grow this large, not more
#: Weights above the first are copied out of the model anew once they and those read since exceed the second: a copy
#: into memory that was used before takes less time than memory that the system has to find.
LARGE_BYTES, RECENT_BYTES = 1 << 16, 1 << 24
UNSTABLE = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
                      "Bernoulli", "If", "Loop", "Scan"})  # fmt: skip

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
MOVES = ARITHMETIC | {"Identity", "Transpose"}
#: What an operator reads of an input, where that is not its values; other inputs must be constant.
TYPE, SHAPE = "type", "shape"
READS: Mapping[str, Mapping[int, str]] = {
    "CastLike": {1: TYPE},
    "EyeLike": {0: SHAPE},
    "Shape": {0: SHAPE},
    "Size": {0: SHAPE},
}


class Constants:
    """Lazily evaluated constants of a network, by tensor name.

    A tensor is constant when it is an initializer, or computed from constants alone (Constant, ConstantOfShape,
    Identity, Transpose, Reshape, DequantizeLinear, arithmetic …), or from the known type or shape of a tensor
    (CastLike, Shape, Size, EyeLike), or from sizes that are known although the network works them out as it runs.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._values: dict[str, Array | None] = {}
        self._recent: dict[str, Array] = {}  # large initializers, the last read last
        self._initializers = network.initializers
        self.producers: dict[str, gs.Node] = {t.name: node for node in network.graph.nodes for t in node.outputs}
        self._fixed = set(self._initializers)
        for node in network.graph.nodes:
            if self._stays_fixed(node):
                self._fixed.update(t.name for t in node.outputs)

    def free_name(self, stem: str) -> str:
        """A name that no tensor of the network has."""
        network, name, count = self._network, stem, 0
        while (
            name in self.producers or name in network.shapes or name in self._initializers or name in network.captured
        ):
            count += 1
            name = f"{stem}_{count}"
        return name

    def add(self, stem: str, array: Array) -> gs.Variable:
        """A new constant of the network, as an initializer."""
        name = self.free_name(stem)
        self._initializers[name] = onnx.numpy_helper.from_array(array, name)
        self._fixed.add(name)
        self._network.shapes[name] = array.shape
        return gs.Variable(name)

    def is_constant(self, name: str) -> bool:
        """Whether the tensor does not depend on the graph's inputs (without evaluating it)."""
        return name in self._fixed

    def _stays_fixed(self, node: gs.Node) -> bool:
        if node.op in UNSTABLE or node.domain not in (None, "", "ai.onnx"):
            return False
        if node.op == "Constant":
            return "value_string" not in node.attrs and "value_strings" not in node.attrs
        if node.op == "DequantizeLinear" and node.attrs.get("block_size", 0):
            return False  # cutting channels would cut blocks
        names = [t.name for t in node.inputs]
        reads = READS.get(node.op, {})
        known = (self._knows(node, names[k], what) for k, what in reads.items() if k < len(names))
        values = [name for k, name in enumerate(names) if name and k not in reads]
        return any(names) and all(known) and all(name in self._fixed or self._is_vector(name) for name in values)

    def _knows(self, node: gs.Node, name: str, what: str) -> bool:
        """Whether the type of a tensor is known, or as much of its shape as a node reads."""
        if what == TYPE or (node.op == "EyeLike" and "dtype" not in node.attrs and not self._network.types.get(name)):
            return bool(self._network.types.get(name))
        shape = self._network.shapes.get(name)
        return shape is not None and all(isinstance(size, int) for size in shape[_read_part(node)])

    def _is_vector(self, name: str) -> bool:
        vector = self._network.vectors.get(name)
        return vector is not None and vector.known

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a constant."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        array = self.get(name)
        return () if array is None else array.shape

    def is_widened(self, name: str) -> bool:
        """Whether a constant is stored in a narrower type: it comes out of a DequantizeLinear or a Cast, directly or
        through nodes that move it or that do arithmetic with it.
        """
        waiting = [name]
        while waiting:
            name = waiting.pop()
            node = self.producers.get(name) if self.is_constant(name) else None
            if node is None or not (node.op in MOVES or self._widens(node)):
                return False
            if node.op in MOVES:  # of operands of one size one that is stored wide already makes a narrow one useless
                sizes = [prod(self.shape(tensor.name)) for tensor in node.inputs]
                waiting += [t.name for t, size in zip(node.inputs, sizes, strict=True) if size == max(sizes)]
        return True

    def _widens(self, node: gs.Node) -> bool:
        if node.op not in ("Cast", "CastLike"):
            return bool(node.op == "DequantizeLinear")
        stored, value = self.get(node.inputs[0].name), self.get(node.outputs[0].name)
        return stored is not None and value is not None and stored.itemsize < value.itemsize

    def quantised(self, name: str) -> gs.Node | None:
        """The DequantizeLinear that a constant comes out of, if it does so directly."""
        node = self.producers.get(self.root(name)) if self.is_constant(name) else None
        return node if node is not None and node.op == "DequantizeLinear" else None

    def root(self, name: str) -> str:
        """The constant that a name stands for, Identity nodes left out: exporters share equal weights that way."""
        node = self.producers.get(name)
        while node is not None and node.op == "Identity" and self.is_constant(name):
            name = str(node.inputs[0].name)
            node = self.producers.get(name)
        return name

    def readers(self) -> Counter[str]:
        """How many inputs of nodes, graph outputs and bodies read each tensor, a constant behind Identity counted as
        itself.
        """
        found = Counter(
            self.root(tensor.name)
            for node in self._network.graph.nodes
            if node.op != "Identity" or not self.is_constant(node.outputs[0].name)
            for tensor in node.inputs
        )
        found.update(map(self.root, (*self._network.outputs, *self._network.captured)))
        return found

    def is_initializer(self, name: str) -> bool:
        return name in self._initializers

    def get(self, name: str) -> Array | None:
        """The value, or None when the tensor is no constant. The array is shared: never write into it."""
        if self._is_large(name):
            return self._copied(name)
        waiting = [name]  # and what it is computed from, by hand: chains may be longer than Python calls deep
        while name not in self._values:
            unknown = [t for t in self._inputs(waiting[-1]) if t not in self._values and not self._is_large(t)]
            waiting += unknown
            if not unknown and (top := waiting.pop()) not in self._values:
                self._values[top] = self._evaluate(top)
        return self._values[name]

    def _is_large(self, name: str) -> bool:
        tensor = self._initializers.get(name)
        large = tensor is not None and payload_bytes(tensor) > LARGE_BYTES
        return large and name not in self._network.mapped.arrays

    def _copied(self, name: str) -> Array:
        array = self._recent.pop(name, None)
        self._recent[name] = array = _to_array(self._initializers[name]) if array is None else array
        while len(self._recent) > 1 and sum(one.nbytes for one in self._recent.values()) > RECENT_BYTES:
            del self._recent[next(iter(self._recent))]
        return array

    def _inputs(self, name: str) -> list[str]:
        """What a constant is computed from."""
        node = self.producers.get(name) if self.is_constant(name) and name not in self._initializers else None
        reads = {} if node is None else READS.get(node.op, {})
        return [] if node is None else [t.name for k, t in enumerate(node.inputs) if t.name and k not in reads]

    def _evaluate(self, name: str) -> Array | None:
        if name in self._initializers:
            mapped = self._network.mapped.arrays.get(name)
            return _to_array(self._initializers[name]) if mapped is None else mapped
        if not name or not self.is_constant(name):
            vector = self._network.vectors.get(name)
            return None if vector is None else as_array(vector, self._network.types.get(name, onnx.TensorProto.INT64))
        node = self.producers[name]
        if node.op == "Constant":
            return _constant_node(node)
        if node.op in READS:
            return self._from_type_or_shape(node)
        values = [self.get(t.name) if t.name else None for t in node.inputs]
        if any(value is None and t.name for value, t in zip(values, node.inputs, strict=True)):
            return None
        first = values[0]
        assert first is not None or node.op not in ("Identity", "Transpose", "ConstantOfShape")
        if node.op == "Identity":
            return first
        if node.op == "Transpose" and first is not None:
            return np.transpose(first, node.attrs.get("perm"))
        if node.op == "ConstantOfShape" and first is not None:
            fill = node.attrs.get("value")
            scalar = np.zeros(1, np.float32) if fill is None else np.asarray(_attribute_array(fill)).reshape(-1)
            return np.broadcast_to(scalar[0], tuple(int(size) for size in first))
        if node.op == "DequantizeLinear" and first is not None and (found := dequantised(node, values)) is not None:
            return found
        if node.op == "BatchNormalization" and not node.attrs.get("training_mode", 0):
            return batch_normalised(values, node.attrs.get("epsilon", 1e-5))
        return self._reference(node, values, name)

    def _from_type_or_shape(self, node: gs.Node) -> Array | None:
        """What an operator of `READS` puts out."""
        name = node.inputs[0].name
        if node.op == "CastLike":
            attributes = {**node.attrs, "to": self._network.types[node.inputs[1].name]}
            value, cast = (
                self.get(name),
                gs.Node("Cast", node.name, attributes, [gs.Variable(name)], [gs.Variable("to")]),
            )
            found = None if value is None else run_node(cast, {name: value}, self._network.opset)
            return None if found is None else found[0]
        shape = np.asarray(self._network.shapes[name][_read_part(node)], np.int64)
        if node.op != "EyeLike":
            return shape if node.op == "Shape" else np.asarray(shape.prod(dtype=np.int64))
        kind = onnx.helper.tensor_dtype_to_np_dtype(node.attrs.get("dtype") or self._network.types[name])
        rows, columns = shape.tolist()
        return np.asarray(np.eye(rows, columns, k=node.attrs.get("k", 0)), kind)

    def _reference(self, node: gs.Node, values: list[Array | None], name: str) -> Array | None:
        feeds = {t.name: value for t, value in zip(node.inputs, values, strict=True) if value is not None}
        results = run_node(node, feeds, self._network.opset)
        if results is None:
            return None
        for tensor, value in zip(node.outputs, results, strict=False):
            self._values[tensor.name] = value if value is None or value.size <= LARGEST_ELEMENTS else None
        return self._values.get(name)


def _read_part(node: gs.Node) -> slice:
    """The part of a shape that a node reads."""
    return slice(node.attrs.get("start", 0), node.attrs.get("end")) if node.op == "Shape" else slice(None)


def batch_normalised(values: list[Array | None], epsilon: float) -> Array | None:
    """BatchNormalization at inference, which standardises weights; old exporters list its training outputs too."""
    if len(values) < 5 or any(value is None for value in values):
        return None
    x, scale, bias, mean, variance = (np.asarray(value) for value in values[:5])
    spread = (1, -1) + (1,) * (x.ndim - 2)
    scale, bias, mean, variance = (part.reshape(spread) for part in (scale, bias, mean, variance))
    return np.asarray((x - mean) / np.sqrt(variance + x.dtype.type(epsilon)) * scale + bias, x.dtype)


def dequantised(node: gs.Node, values: list[Array | None]) -> Array | None:
    """DequantizeLinear per tensor or per axis: (x − zero point) · scale; None when it is neither."""
    x, scale = values[0], values[1]
    zero = values[2] if len(values) > 2 else None
    if x is None or scale is None or scale.ndim > 1:
        return None
    spread = (1,) * x.ndim if scale.size == 1 else tuple(
        -1 if k == node.attrs.get("axis", 1) % x.ndim else 1 for k in range(x.ndim))  # fmt: skip
    offset = 0 if zero is None else zero.astype(np.float64).reshape(spread)  # holds 32 bits exactly
    return np.asarray((x.astype(np.float64) - offset).astype(scale.dtype) * scale.reshape(spread))


def _to_array(tensor: onnx.TensorProto) -> Array:
    """A view of the tensor's bytes where the type allows it."""
    if tensor.HasField("raw_data") and tensor.data_type in (1, 7, 10, 11):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        values = np.frombuffer(tensor.raw_data, dtype)
        if values.size != prod(tensor.dims):
            raise PruneError(f"weight {tensor.name!r} has {values.size} values, not those of {list(tensor.dims)}")
        return values.reshape(tuple(tensor.dims))
    return onnx.numpy_helper.to_array(tensor)


def _attribute_array(value: Any) -> Array:
    proto = initializer_of(value)
    if proto is not None:
        return _to_array(proto)
    return np.asarray(value.values)


def _constant_node(node: gs.Node) -> Array | None:
    for key, value in node.attrs.items():
        if key == "value":
            return _attribute_array(value)
        if key.startswith("value_float"):
            return np.asarray(value, np.float32)
        if key.startswith("value_int"):
            return np.asarray(value, np.int64)
    return None


def run_node(node: gs.Node, feeds: dict[str, Array], opset: int) -> list[Array | None] | None:
    """Evaluate one node with the ONNX reference operators; None when they do not know it or refuse the input."""
    from onnx.reference import ReferenceEvaluator
    from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

    proto = OnnxExporter.export_node(node)
    inputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in feeds]
    names = [name for name in proto.output if name]
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in names]
    graph = onnx.helper.make_graph([proto], "node", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001 - whatever the evaluator cannot do is simply not known as a constant
        return None
    found = dict(zip(names, results, strict=True))
    return [np.asarray(found[name]) if name else None for name in proto.output]
