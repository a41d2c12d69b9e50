"""A small network that several parts serve, measure and prune."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(width: int, *, classes: int = 5, zeros: float = 0.8, empty: int = 0) -> onnx.ModelProto:
    """Return conv - relu - conv - relu - pool - gemm, of whose convolution weights the share `zeros` is
    zero, and the first `empty` filters.
    """
    random = np.random.default_rng(width)

    def sparse(*shape: int) -> np.ndarray:
        weights = random.standard_normal(shape).astype(np.float32)
        weights[random.random(shape) < zeros] = 0
        return weights

    tensors = {
        "w1": sparse(width, 3, 3, 3),
        "b1": random.standard_normal(width).astype(np.float32),
        "w2": sparse(width, width, 3, 3),
        "w3": random.standard_normal((classes, width)).astype(np.float32),
        "b3": random.standard_normal(classes).astype(np.float32),
    }
    tensors["w1"][:empty] = tensors["b1"][:empty] = 0
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
