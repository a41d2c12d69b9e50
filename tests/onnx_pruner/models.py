"""A small model for many tests, and how it is refused."""

import numpy as np
import onnx
import onnx.parser


def model(dead: tuple[int, ...] = (2,), ir_version: int = 10) -> onnx.ModelProto:
    """x → Conv → Relu → Conv → y, with zero filters in the first."""
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    w1[list(dead)] = 0
    found = onnx.parser.parse_model(
        f"""<ir_version: {ir_version}, opset_import: ["" : 17]>
        g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) }}"""
    )
    found.graph.initializer.append(onnx.numpy_helper.from_array(w1, "w1"))
    w2 = rng.standard_normal((4, 8, 1, 1)).astype(np.float32)
    found.graph.initializer.append(onnx.numpy_helper.from_array(w2, "w2"))
    found.metadata_props.add(key="author", value="somebody")
    return found
