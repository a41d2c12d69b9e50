"""A model as a graph that the pruner can edit, and writing it back.

Graphs go through onnx-graphsurgeon; the weights stay where they are in the source model until something
changes them, so that a 100 MB model costs one copy, not five.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.inliner
import onnx.shape_inference
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from onnx_shift.errors import first_line
from onnx_shift.onnx_pruner.graph.contrib import Apart, taken_apart
from onnx_shift.onnx_pruner.graph.external import NOTHING_MAPPED, Mapped
from onnx_shift.onnx_pruner.graph.inner import STANDARD, captured_by, captured_names, inner_names, subgraphs
from onnx_shift.onnx_pruner.graph.reading import LoadedModel, PruneError
from onnx_shift.onnx_pruner.graph.shapes import infer
from onnx_shift.onnx_pruner.graph.vectors import Dimension, Shape, Vector

Array = NDArray[Any]
__all__ = ["Array", "Dimension", "Network", "Shape", "open_network"]

OLDEST_OPSET = 7  # before it, broadcasting in element-wise operators had other rules
FOREIGN = "unknown"  # a domain for operators that the standard does not know
LARGE_BYTES = 1 << 12  # initializers above this are hidden from shape inference
LARGEST_MESSAGE = (1 << 31) - 1


@dataclass
class Network:
    """A model opened for editing: the graph, and what is known of each tensor by name."""

    source: onnx.ModelProto
    graph: gs.Graph
    nodes: Mapping[int, tuple[gs.Node, onnx.NodeProto, Mapping[str, Any]]]  # by id: as it was read
    initializers: dict[str, onnx.TensorProto]  # those of the source, and its large Constant nodes
    opset: int
    shapes: dict[str, Shape]
    types: dict[str, int]
    vectors: Mapping[str, Vector]  # small integer tensors worked out at run time, as far as they are known
    captured: frozenset[str]
    size_bytes: int  # of graph and weights, without the names of weights
    apart: tuple[Apart, ...] = ()  # fused nodes that were taken apart
    reserved: frozenset[str] = frozenset()  # names that new tensors must not have
    mapped: Mapped = NOTHING_MAPPED  # weights that stay in their file

    @property
    def outputs(self) -> list[str]:
        return [tensor.name for tensor in self.graph.outputs]

    def wanted(self, without: Mapping[int, Collection[int]] = {}) -> set[str]:
        """Names that a graph output depends on; `without`: inputs that are not read, by id of the node."""
        found = {*self.outputs, *self.captured}
        for node in reversed(self.graph.nodes):
            if any(tensor.name in found for tensor in node.outputs):
                unread = without.get(id(node), ())
                found.update(t.name for k, t in enumerate(node.inputs) if t.name and k not in unread)
        return found


# --- opening ---------------------------------------------------------------------------------------------------


def open_network(source: LoadedModel) -> Network:
    """Open a model for editing; the model itself is never changed. Raises PruneError when it is not sound."""
    model, name = source.model, source.name
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model = _in_order(model)
    opset = opset_of(model, name)
    model, apart = taken_apart(model, opset)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = {
        node.output[0]: value
        for node in model.graph.node
        if (value := _constant_value(node)) is not None and payload_bytes(value) >= LARGE_BYTES
    }
    skeleton = _with_output_shapes(_without_large_weights(model, constants))
    initializers |= constants
    known = _with_foreign_apart(skeleton, opset)
    try:
        onnx.checker.check_model(_with_typed_outputs(known))
    except onnx.checker.ValidationError as error:
        if "deprecated" not in str(error):  # runtimes go on running what the standard has retired
            raise PruneError(f"{name}: fails the ONNX checker: {first_line(error)}") from error
    _check_weights(model, name, source.mapped.arrays)
    try:
        inferred = infer(known)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise PruneError(f"{name}: shapes do not fit together: {first_line(error)}") from error
    shapes, types = inferred.shapes, inferred.types
    for weight, tensor in initializers.items():
        types[weight] = tensor.data_type
        shapes[weight] = tuple(tensor.dims)
    with quiet_graphsurgeon():
        imported = gs.import_onnx(skeleton)
    captured = frozenset(captured_names(model.graph))
    originals = {
        id(node): (node, proto, dict(node.attrs))
        for node, proto in zip(imported.nodes, skeleton.graph.node, strict=True)
    }
    payloads = (payload_bytes(tensor) for tensor in initializers.values())
    size_bytes = skeleton.ByteSize() + sum(size for size in payloads if size >= LARGE_BYTES)  # the others are in it
    reserved = source.reserved | captured | set(inner_names(model.graph))
    return Network(
        model,
        imported,
        originals,
        initializers,
        opset,
        shapes,
        types,
        inferred.vectors,
        captured,
        size_bytes,
        apart,
        reserved,
        source.mapped,
    )


def opset_of(model: onnx.ModelProto, name: str) -> int:
    """The version of the standard operators; the newest for a model that uses none and states none."""
    stated = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    if not stated and any(node.domain in STANDARD for node in model.graph.node):
        raise PruneError(f"{name}: states no version of the standard operators (opset)")
    return stated or onnx.defs.onnx_opset_version()


def _with_foreign_apart(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model with operators that the standard does not know in a domain of their own, as plugins of runtimes are
    written into the standard's; the checker and shape inference leave other domains alone.
    """
    imported = {entry.domain for entry in model.opset_import}
    foreign = [node for node in _all_nodes(model.graph) if node.domain in STANDARD and not _is_known(node, opset)]
    missing = {node.domain for node in _all_nodes(model.graph)} - imported - STANDARD
    if not foreign and not missing:
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for node in _all_nodes(found.graph):
        if node.domain in STANDARD and not _is_known(node, opset):
            node.domain = FOREIGN
    found.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in sorted(missing | {FOREIGN}))
    return found


def foreign_operators(model: onnx.ModelProto) -> list[str]:
    """Names of the operators that the standard does not know."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    own = {(function.domain, function.name) for function in model.functions}
    nodes = [node for node in _all_nodes(model.graph) if (node.domain, node.op_type) not in own]
    return sorted({n.op_type for n in nodes if n.domain not in STANDARD or not _is_known(n, opset)})


def _is_known(node: onnx.NodeProto, opset: int) -> bool:
    return bool(onnx.defs.has(node.op_type, opset))


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from _all_nodes(body)


def _with_typed_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a type and shape for outputs that have none: runtimes work them out, the checker asks for them."""
    if all(one.type.WhichOneof("value") not in (None, "tensor_type") or one.type.tensor_type.HasField("shape")
           for one in model.graph.output):  # fmt: skip
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for one in found.graph.output:
        if one.type.WhichOneof("value") in (None, "tensor_type"):
            tensor = one.type.tensor_type
            tensor.elem_type = tensor.elem_type or onnx.TensorProto.FLOAT
            tensor.shape.SetInParent()
    return found


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every node behind those that it reads from, as the standard asks and runtimes do without."""
    nodes = model.graph.node
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [[maker[name] for name in (*node.input, *captured_by(node)) if name in maker] for node in nodes]
    if all(before < index for index, needed in enumerate(needs) for before in needed):
        return model
    order: dict[int, None] = {}
    waiting = list(reversed(range(len(nodes))))
    entered: set[int] = set()
    while waiting:
        index = waiting[-1]
        missing = [] if index in entered else [before for before in needs[index] if before not in order]
        entered.add(index)  # a node met again stands in a circle, which the checker tells
        waiting += missing
        if not missing:
            order[waiting.pop()] = None
    sorted_model = onnx.ModelProto()
    sorted_model.CopyFrom(model)
    del sorted_model.graph.node[:]
    sorted_model.graph.node.extend(nodes[index] for index in order)
    return sorted_model


def _with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of outputs that it leaves out, as runtimes let it, where they can be inferred."""
    tensors = [one.type.tensor_type for one in model.graph.output if one.type.HasField("tensor_type")]
    if all(tensor.HasField("shape") for tensor in tensors):
        return model
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return model  # the checker says what is wrong
    for output, known in zip(model.graph.output, inferred, strict=True):
        output.CopyFrom(known)
    return model


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)


def _check_weights(model: onnx.ModelProto, name: str, mapped: Collection[str]) -> None:
    """Refuse what the checker of the skeleton cannot see."""
    seen: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.name in seen:
            raise PruneError(f"{name}: two initializers are called {tensor.name!r}")
        seen.add(tensor.name)
        if any(size < 0 for size in tensor.dims):
            raise PruneError(f"{name}: initializer {tensor.name!r} has a negative dimension")
        if tensor.data_location == onnx.TensorProto.EXTERNAL and tensor.name not in mapped:
            raise PruneError(f"{name}: the external data of initializer {tensor.name!r} is not loaded")


def payload_bytes(tensor: onnx.TensorProto) -> int:
    """How many bytes the values of a tensor take (asking protobuf would serialise them)."""
    if tensor.data_type == onnx.TensorProto.STRING or tensor.data_type not in onnx.helper.get_all_tensor_dtypes():
        return int(tensor.ByteSize())
    packed = _PACKED.get(tensor.data_type, 1)  # numbers in a byte
    size_bytes = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(-(-prod(tensor.dims) * size_bytes // packed))


_PACKED = {
    kind: packed
    for packed, names in ((2, ("INT4", "UINT4", "FLOAT4E2M1")), (4, ("INT2", "UINT2")))
    for name, kind in onnx.TensorProto.DataType.items()
    if name in names
}


def _without_large_weights(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> onnx.ModelProto:
    """The model with its large constants as inputs, and no value_info (it may be stale): quick to infer."""
    skeleton = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name or "graph"
    inputs = {info.name for info in model.graph.input}
    large = dict(constants)
    for tensor in model.graph.initializer:
        if payload_bytes(tensor) >= LARGE_BYTES:
            large[tensor.name] = tensor
        else:
            graph.initializer.append(tensor)
    graph.node.extend(node for node in model.graph.node if not (node.output and node.output[0] in constants))
    graph.input.extend(info for info in model.graph.input if info.name not in large)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)) for name, tensor in large.items()
    )
    graph.output.extend(model.graph.output)
    foreign = {name for node in model.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    graph.value_info.extend(info for info in model.graph.value_info if info.name in foreign - inputs)
    return skeleton


def copy_fields(message: Any, target: Any, *, without: str) -> None:
    """Copy the fields of a protobuf message that are set, all but one: that may be large."""
    for field in target.DESCRIPTOR.fields_by_name:
        if field == without or not _is_set(message, field):
            continue
        value = getattr(message, field)
        if hasattr(value, "extend"):
            getattr(target, field).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field).CopyFrom(value)
        else:
            setattr(target, field, value)


def _is_set(message: Any, field: str) -> bool:
    if hasattr(getattr(message, field), "extend"):
        return len(getattr(message, field)) > 0
    return bool(message.HasField(field))


@contextmanager
def quiet_graphsurgeon() -> Iterator[None]:
    """Silence graphsurgeon's remarks (on types and doubled node names) while it works for us."""
    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.CRITICAL
    try:
        yield
    finally:
        G_LOGGER.severity = before


def initializer_of(tensor: gs.Tensor) -> onnx.TensorProto | None:
    """The TensorProto behind a constant that the source model holds, if `tensor` is one."""
    if not isinstance(tensor, gs.Constant):
        return None
    return tensor._values.tensor if isinstance(tensor._values, LazyValues) else None


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller must feed: not the weights that old models list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in weights]
