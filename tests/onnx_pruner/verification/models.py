"""Small models to compare."""

import numpy as np
import onnx
from onnx import numpy_helper

CONV = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2,H,W] x) => (float[N,4,P,Q] y)
{
  convolved = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w, b)
  y = Relu (convolved)
}
"""


def conv_model(change: float = 0.0, text: str = CONV) -> onnx.ModelProto:
    """Return a convolution whose first weight is off by `change`."""
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    weight[0, 0, 0, 0] += change
    bias = np.full(4, 0.5, np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
    return model


def parsed(signature: str, body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net {signature} {{ {body} }}')
