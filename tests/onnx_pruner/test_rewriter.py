"""What a rule may rewrite."""

import numpy as np

from tests.onnx_pruner.conftest import Exact, weight


def test_a_table_that_is_also_a_weight_is_not_copied(exact: Exact) -> None:
    text = """g (int64[N,4] ids, float[N,3,6,6] x) => (float[N,4,50] scores, float[N,5,6,6] y) {
        e = Gather(E, ids)
        m = MatMul(e, L)
        h = Relu(m)
        t = Transpose<perm=[1,0]>(E)
        scores = MatMul(h, t)
        c = Conv(x, a)
        r = Relu(c)
        y = Conv(r, b)
    }"""
    middle = weight(16, 16)
    middle[:, ::2] = 0
    convolutions = {"a": weight(8, 3, 1, 1, dead=(1, 2)), "b": weight(5, 8, 1, 1)}
    pruned = exact(text, {"E": weight(50, 16), "L": middle, **convolutions})
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in pruned.model.graph.initializer}
    assert sum(sizes.values()) == 50 * 16 + 16 * 16 + 6 * 3 + 5 * 6  # elsewhere it is pruned all the same
