"""Weights stored as sparse tensors: made dense when a model is read, and sparse again where that is asked for.

A sparse tensor lists its non-zero values and where they lie, by position in row-major order or by index on each axis.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
import onnx.numpy_helper

from onnx_shift.onnx_pruner.graph.inner import subgraphs
from onnx_shift.onnx_pruner.graph.network import Array
from onnx_shift.onnx_pruner.graph.reading import PruneError

INDEX_BYTES = 8  # the standard has positions in int64 only
OLDEST_IR_VERSION = 6  # that runtimes read sparse tensors from
FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


def sparse_tensors(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    """Those of a graph and of its bodies: initializers, and values of Constant nodes."""
    yield from graph.sparse_initializer
    for node in graph.node:
        yield from (attribute.sparse_tensor for attribute in node.attribute if attribute.name == "sparse_value")
        for body in subgraphs(node):
            yield from sparse_tensors(body)


def with_dense_weights(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model `name` with every sparse tensor made dense; the very model when it has none. Raises PruneError for one
    whose positions lie outside it.
    """
    if next(sparse_tensors(model.graph), None) is None:
        return model
    dense = onnx.ModelProto()
    dense.CopyFrom(model)
    try:
        _make_dense(dense.graph)
    except (IndexError, ValueError) as error:
        raise PruneError(f"{name}: a sparse tensor has positions outside it ({error})") from error
    return dense


def _make_dense(graph: onnx.GraphProto) -> None:
    graph.initializer.extend(_dense(tensor, tensor.values.name) for tensor in graph.sparse_initializer)
    graph.ClearField("sparse_initializer")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "sparse_value":
                value = _dense(attribute.sparse_tensor, node.output[0])
                attribute.CopyFrom(onnx.helper.make_attribute("value", value))
        for body in subgraphs(node):
            _make_dense(body)


def _dense(tensor: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    values, indices = (onnx.numpy_helper.to_array(part) for part in (tensor.values, tensor.indices))
    array = np.zeros(tuple(tensor.dims), values.dtype)
    where = indices.reshape(-1) if indices.ndim < 2 else np.ravel_multi_index(tuple(indices.T), array.shape)
    array.reshape(-1)[where] = values
    return onnx.numpy_helper.from_array(array, name)


def dense_bytes(model: onnx.ModelProto) -> int:
    """How many bytes the sparse tensors of a model take once they are dense."""
    found = ((prod(tensor.dims), tensor.values.data_type) for tensor in sparse_tensors(model.graph))
    return sum(count * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) for count, kind in found)


def with_sparse_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each weight that is smaller so as a sparse tensor; the very model when there is none.

    Weights that are also graph inputs stay: their values may be fed.
    """
    inputs = {info.name for info in model.graph.input}
    smaller = {
        tensor.name: array for tensor in model.graph.initializer
        if tensor.name not in inputs and (array := _worth_sparse(tensor)) is not None
    }  # fmt: skip
    if not smaller:
        return model
    sparse = onnx.ModelProto()
    sparse.CopyFrom(model)
    sparse.ir_version = max(sparse.ir_version, OLDEST_IR_VERSION)
    dense = [tensor for tensor in model.graph.initializer if tensor.name not in smaller]
    sparse.graph.ClearField("initializer")
    sparse.graph.initializer.extend(dense)
    for name, array in smaller.items():
        where = np.flatnonzero(array)
        added = sparse.graph.sparse_initializer.add(dims=array.shape)
        added.values.CopyFrom(onnx.numpy_helper.from_array(array.reshape(-1)[where], name))
        added.indices.CopyFrom(onnx.numpy_helper.from_array(where.astype(np.int64), f"{name}_indices"))
    return sparse


def _worth_sparse(tensor: onnx.TensorProto) -> Array | None:
    """The values of a weight that takes fewer bytes as a sparse tensor."""
    if tensor.data_type not in FLOATS or prod(tensor.dims) < 2:
        return None
    array = onnx.numpy_helper.to_array(tensor)
    count = int(np.count_nonzero(array))
    return array if 0 < count * (array.itemsize + INDEX_BYTES) < array.nbytes else None
