"""Sparse tensors: dense once read, pruned, and written as sparse tensors again where that is asked for."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.graph.sparse import with_sparse_weights
from tests.onnx_pruner.conftest import Array, bias, build, weight
from zoo.judge import judge

TEXT = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
    c = Conv<pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(c)
    y = Conv(r, w2)
}"""
Store = Callable[[onnx.GraphProto, onnx.SparseTensorProto], None]


def sparse_tensor(array: Array, name: str, kind: type = np.int64, by_axis: bool = False) -> onnx.SparseTensorProto:
    where = np.flatnonzero(array)
    positions = np.argwhere(array) if by_axis else where
    return onnx.SparseTensorProto(
        dims=array.shape,
        values=numpy_helper.from_array(array.reshape(-1)[where], name),
        indices=numpy_helper.from_array(positions.astype(kind), f"{name}_indices"),
    )


def as_initializer(graph: onnx.GraphProto, tensor: onnx.SparseTensorProto) -> None:
    graph.sparse_initializer.append(tensor)


def as_node(graph: onnx.GraphProto, tensor: onnx.SparseTensorProto) -> None:
    graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w1"], sparse_value=tensor))


def sparse_model(store: Store = as_initializer, kind: type = np.int64, by_axis: bool = False) -> onnx.ModelProto:
    """Every second of 16 filters is zero."""
    filters = weight(16, 3, 3, 3, dead=tuple(range(0, 16, 2)))
    dense = {"w1": filters, "b1": bias(16), "w2": weight(4, 16, 1, 1, seed=1)}
    model = build(TEXT, dense, 17)
    del model.graph.initializer[0]
    store(model.graph, sparse_tensor(filters, "w1", kind, by_axis))
    return model


@pytest.mark.parametrize("by_axis", [False, True])
@pytest.mark.parametrize(
    ("store", "kind"), [(as_initializer, np.int64), (as_initializer, np.int32), (as_node, np.int64)]
)
def test_a_sparse_weight_is_pruned(store: Store, kind: type, by_axis: bool) -> None:
    model = sparse_model(store, kind, by_axis)
    result = prune(model, align=1, verify=True)
    assert result.report.channels_removed == 8
    assert result.report.parameters_after == 8 * 3 * 9 + 8 + 4 * 8 + 4
    onnx.checker.check_model(result.model, full_check=True)
    assert not result.model.graph.sparse_initializer


def scattered(share: float) -> onnx.ModelProto:
    """Nothing to remove; a share of the first weight is zero."""
    filters = weight(16, 3, 3, 3)
    filters.reshape(48, 9)[:, 1:][np.random.default_rng(0).random((48, 8)) < share] = 0
    return build(TEXT, {"w1": filters, "b1": bias(16), "w2": weight(4, 16, 1, 1, seed=1)}, 17)


def test_nothing_to_prune_leaves_the_very_model() -> None:
    for model in (scattered(0.9), with_sparse_weights(scattered(1))):
        assert prune(model, verify=False).model is model


@pytest.mark.parametrize(("share", "sparse"), [(0.5, []), (1, ["w1"])])
def test_weights_that_are_smaller_so_are_written_sparse_on_demand(share: float, sparse: list[str]) -> None:
    model = scattered(share)
    result = prune(model, align=1, sparse_initializers=True)
    assert [t.values.name for t in result.model.graph.sparse_initializer] == sparse
    assert judge(model, result.model).error <= 1
    onnx.checker.check_model(result.model)
    assert result.report.unchanged == (not sparse)
    assert result.report.bytes_after == pytest.approx(result.model.ByteSize(), abs=100)
    assert prune(result.model, align=1, sparse_initializers=True).report.unchanged


def test_positions_outside_are_refused() -> None:
    model = sparse_model()
    model.graph.sparse_initializer[0].dims[0] = 2
    with pytest.raises(PruneError, match="positions outside"):
        prune(model)
