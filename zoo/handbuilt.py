"""Networks written down as ONNX text: habits of old opsets, of converters and of quantisers that torch never
exports.

Each function returns a model whose weights are random; a weight is declared by its name and shape.
"""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shapes = dict[str, tuple[int, ...]]


def network(body: str, weights: Shapes, *, opset: int = 17, ir: int = 8, **arrays: Any) -> onnx.ModelProto:
    """Parse `body`, a graph's signature and nodes, and add random weights and the given arrays."""
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]> net {body}')
    rng = np.random.default_rng(crc32(body.encode()))
    for name, shape in weights.items():
        array = rng.standard_normal(shape) * (np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.3)
        if name.startswith("var"):
            array = rng.uniform(0.5, 1.5, shape)
        arrays[name] = array.astype(np.float32)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items())
    return model


def inputs_listed(model: onnx.ModelProto) -> onnx.ModelProto:
    """List every weight as a graph input, as models of IR version 3 do."""
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    )
    return model


def old_mnist() -> onnx.ModelProto:
    """Opset 7: weights as inputs, biases by broadcast Add, the matrix reshaped from four dimensions."""
    text = """(float[1,1,16,16] x) => (float[1,10] y) {
        a = Conv <kernel_shape = [5,5], auto_pad = "SAME_UPPER"> (x, w1)  b = Add (a, b1)  c = Relu (b)
        d = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
        e = Conv <kernel_shape = [5,5], auto_pad = "SAME_LOWER"> (d, w2)  f = Add (e, b2)  g = Relu (f)
        h = MaxPool <kernel_shape = [4,4], strides = [4,4]> (g)
        i = Reshape (h, s1)  j = Reshape (w3, s2)  k = MatMul (i, j)  y = Add (k, b3)
    }"""
    shapes: Shapes = {"w1": (12, 1, 5, 5), "b1": (12, 1, 1), "w2": (20, 12, 5, 5), "b2": (20, 1, 1)}
    shapes |= {"w3": (20, 2, 2, 10), "b3": (1, 10)}
    return inputs_listed(network(text, shapes, opset=7, ir=3, s1=np.array([1, 80]), s2=np.array([80, 10])))


def old_upsample() -> onnx.ModelProto:
    """Opset 9: Upsample with scales as an input, BatchNormalization, Clip with attributes, Dropout."""
    text = """(float[N,3,12,12] x) => (float[N,4,24,24] y) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1)
        b = BatchNormalization (a, s1, b1, m1, var1)
        c = Clip <min = 0.0, max = 6.0> (b)  d = Dropout <ratio = 0.5> (c)
        e = Upsample <mode = "nearest"> (d, scales)
        y = Conv <kernel_shape = [1,1]> (e, w2)
    }"""
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "s1": (16,),
        "b1": (16,),
        "m1": (16,),
        "var1": (16,),
        "w2": (4, 16, 1, 1),
    }
    return network(text, shapes, opset=9, ir=4, scales=np.array([1, 1, 2, 2], np.float32))


def channels_last() -> onnx.ModelProto:
    """A converted NHWC model: transposes around every convolution, bias added and Pad applied in NHWC."""
    text = """(float[N,16,16,3] x) => (float[N,10] y) {
        a = Transpose <perm = [0,3,1,2]> (x)  b = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (a, w1)
        c = Transpose <perm = [0,2,3,1]> (b)  d = Add (c, b1)  e = Relu (d)  f = Pad (e, amounts)
        g = Transpose <perm = [0,3,1,2]> (f)  h = Conv <kernel_shape = [3,3], strides = [2,2]> (g, w2)
        i = Transpose <perm = [0,2,3,1]> (h)  j = Mul (i, s2)  k = Add (j, b2)  l = LeakyRelu (k)
        m = ReduceMean <axes = [1,2], keepdims = 0> (l)  n = MatMul (m, w3)  o = Add (n, b3)  y = Softmax (o)
    }"""
    shapes: Shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (24, 16, 3, 3), "s2": (24,), "b2": (24,)}
    shapes |= {"w3": (24, 10), "b3": (10,)}
    return network(text, shapes, opset=13, amounts=np.array([0, 1, 1, 0, 0, 1, 1, 0]))


def channels_last_flattened() -> onnx.ModelProto:
    """NHWC flattened into a matrix: channels vary fastest in the features."""
    text = """(float[N,3,8,8] x) => (float[N,10] y) {
        a = Conv <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (x, w1, b1)  b = Relu (a)
        c = Transpose <perm = [0,2,3,1]> (b)  d = Reshape (c, s)  e = Gemm <transB = 1> (d, w2, b2)
        f = Relu (e)  y = Gemm (f, w3, b3)
    }"""
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (32, 256),
        "b2": (32,),
        "w3": (32, 10),
        "b3": (10,),
    }
    return network(text, shapes, s=np.array([-1, 256]))


def computed_shapes() -> onnx.ModelProto:
    """Flatten and upsampling by way of Shape, Gather, Unsqueeze and Concat."""
    text = """(float[N,3,H,W] x) => (float[N,5,P,Q] y, float[N,F] z) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (x, w1, b1)  b = Relu (a)
        c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (b, w2, b2)  d = Relu (c)
        s = Shape (x)  s2 = Slice (s, two, four)  s3 = Shape (d)  s4 = Slice (s3, zero, two)
        s5 = Concat <axis = 0> (s4, s2)
        e = Resize <mode = "linear"> (d, none, none, s5)  y = Conv <kernel_shape = [1,1]> (e, w3, b3)
        n = Gather (s3, first)  n1 = Unsqueeze (n, zero)  c1 = Gather (s3, second)  c2 = Unsqueeze (c1, zero)
        p = GlobalMaxPool (d)  t = Concat <axis = 0> (n1, c2)  z = Reshape (p, t)
    }"""
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (24, 16, 3, 3),
        "b2": (24,),
        "w3": (5, 24, 1, 1),
        "b3": (5,),
    }
    constants = {"two": np.array([2]), "four": np.array([4]), "zero": np.array([0])}
    constants |= {"first": np.array(0), "second": np.array(1), "none": np.zeros(0, np.float32)}
    return network(text, shapes, **constants)


def shape_of_channels() -> onnx.ModelProto:
    """The number of channels enters the arithmetic, as in a mean by hand, and Expand takes the shape."""
    text = """(float[N,3,8,8] x) => (float[N,6,8,8] y) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)  b = Sigmoid (a)
        s = Shape (b)  c = Gather (s, one)  f = Cast <to = 1> (c)  t = ReduceSum (b, axis)  m = Div (t, f)
        e = Expand (m, s)  d = Sub (b, e)  g = Mul (b, d)  h = Conv <kernel_shape = [1,1]> (g, w2)
        i = Relu (h)
        y = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (i, w3)
    }"""
    shapes: Shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (12, 16, 1, 1), "w3": (6, 12, 3, 3)}
    return network(text, shapes, one=np.array(1), axis=np.array([1]))


def shared_weights() -> onnx.ModelProto:
    """One weight for two layers, directly and behind Identity, and one bias for all."""
    text = """(float[N,16,8,8] x) => (float[N,10] y) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)  b = Relu (a)
        i = Identity (w1)  j = Identity (b1)  c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (b, i, j)
        d = Relu (c)
        e = Conv <kernel_shape = [3,3]> (d, w1, b1)  f = Relu (e)  g = GlobalAveragePool (f)  h = Flatten (g)
        t = Transpose (w2)  y = Gemm (h, t, b2)
    }"""
    return network(text, {"w1": (16, 16, 3, 3), "b1": (16,), "w2": (10, 16), "b2": (10,)})


def constant_weights() -> onnx.ModelProto:
    """Weights in Constant nodes and as ConstantOfShape."""
    model = network(
        """(float[N,3,8,8] x) => (float[N,4,6,6] y) {
        w1 = ConstantOfShape <value = float[1] {0.05}> (s1)  a = Conv <kernel_shape = [3,3]> (x, w1, b1)  b =
        Relu (a) c = Conv <kernel_shape = [1,1]> (b, w2, b2)  d = Relu (c)  y = Conv <kernel_shape = [1,1]>
        (d, w3)
    }""",
        {"b1": (16,), "w2": (12, 16, 1, 1), "b2": (12,), "w3": (4, 12, 1, 1)},
        s1=np.array([16, 3, 3, 3]),
    )
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in ("w2", "w3")]
    moved = [tensor for tensor in model.graph.initializer if tensor.name in ("w2", "w3")]
    for tensor in moved:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def quantised() -> onnx.ModelProto:
    """Weights and activations between QuantizeLinear and DequantizeLinear, weights per channel."""
    text = """(float[N,3,8,8] x) => (float[N,10] y) {
        a = QuantizeLinear (x, sx, zx)  b = DequantizeLinear (a, sx, zx)
        w1f = DequantizeLinear <axis = 0> (w1, sw1, zw1)
        c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (b, w1f, b1)
        d = Relu (c)  e = QuantizeLinear (d, sx, zx)  f = DequantizeLinear (e, sx, zx)
        w2f = DequantizeLinear <axis = 0> (w2, sw2, zw2)  g = Conv <kernel_shape = [3,3]> (f, w2f, b2)
        h = Relu (g)
        i = GlobalAveragePool (h)  j = Flatten (i)  w3f = DequantizeLinear (w3, s3, z3)
        y = Gemm <transB = 1> (j, w3f, b3)
    }"""
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {
        "sx": np.float32(0.03),
        "zx": np.uint8(100),
        "s3": np.float32(0.02),
        "z3": np.int8(0),
    }
    for name, shape in (("w1", (16, 3, 3, 3)), ("w2", (24, 16, 3, 3)), ("w3", (10, 24))):
        arrays[name] = rng.integers(-127, 128, shape).astype(np.int8)
    for name, count in (("1", 16), ("2", 24)):
        arrays[f"sw{name}"] = rng.uniform(0.001, 0.004, count).astype(np.float32)
        arrays[f"zw{name}"] = np.zeros(count, np.int8)
    return network(text, {"b1": (16,), "b2": (24,), "b3": (10,)}, opset=13, **arrays)


def branching() -> onnx.ModelProto:
    """The bodies of an If capture an activation of the graph around it."""
    text = """(float[N,3,8,8] x, bool flag) => (float[N,16,8,8] y, float[N,5,8,8] z) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)  b = Relu (a)
        c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (b, w2, b2)  d = Relu (c)
        y = If (flag) <then_branch = then_graph () => (float[N,16,8,8] t) { t = Add (b, d) },
                       else_branch = else_graph () => (float[N,16,8,8] u) { u = Mul (b, b) }>
        e = Conv <kernel_shape = [1,1]> (d, w3)  f = Relu (e)  z = Conv <kernel_shape = [1,1]> (f, w4)
    }"""
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (16, 16, 3, 3),
        "b2": (16,),
        "w3": (16, 16, 1, 1),
    }
    return network(text, {**shapes, "w4": (5, 16, 1, 1)})


def local_functions() -> onnx.ModelProto:
    """Two layers as calls of one function of the model."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        net (float[N,3,8,8] x) => (float[N,4,4,4] y)
        { a = own.Layer (x, w1, b1)  b = own.Layer (a, w2, b2)  y = Conv <kernel_shape = [1,1]> (b, w3) }
        <domain: "own", opset_import: ["" : 17]>
        Layer (x, w, b) => (y) { a = Conv <kernel_shape = [3,3]> (x, w, b)  y = Relu (a) }
    """)
    rng = np.random.default_rng(0)
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (12, 16, 3, 3),
        "b2": (12,),
        "w3": (4, 12, 1, 1),
    }
    arrays = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["w1"][::3] = arrays["w2"][:, 1::3] = 0
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def middle_outputs() -> onnx.ModelProto:
    """Activations in the middle are outputs too, and one branch leads nowhere."""
    text = """(float[N,3,8,8] x) => (float[N,10] y, float[N,16,8,8] b) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)  b = Relu (a)
        c = Conv <kernel_shape = [3,3]> (b, w2, b2)  d = Relu (c)  u = Conv <kernel_shape = [1,1]> (d, w4)
        e = Conv <kernel_shape = [3,3]> (d, w3, b3)  f = Relu (e)  g = GlobalAveragePool (f)  h = Flatten (g)
        y = Gemm <transB = 1> (h, w5)
    }"""
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (16, 16, 3, 3),
        "b2": (16,),
        "w3": (24, 16, 3, 3),
    }
    return network(text, {**shapes, "b3": (24,), "w4": (8, 16, 1, 1), "w5": (10, 24)})


def pieces() -> onnx.ModelProto:
    """Unequal Split, strided and negative Slice, Gather, Tile and Where along the channels."""
    text = """(float[N,3,8,8] x) => (float[N,6,8,8] y) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)  b = Tanh (a)
        p, q, r = Split <axis = 1> (b, sizes)  s = Slice (b, from, to, axis, step)
        t = Slice (b, back, end, axis, minus)
        u = Gather <axis = 1> (b, picks)  v = Tile (p, twice)  c = Concat <axis = 1> (v, q, r, s, t, u)
        zero = Constant <value = float[1] {0.0}> ()  m = Greater (c, zero)  n = Neg (c)  d = Where (m, c, n)
        e = Conv <kernel_shape = [1,1]> (d, w2, b2)  f = Relu (e)
        y = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (f, w3)
    }"""
    constants = {
        "sizes": [4, 10, 6],
        "from": [1],
        "to": [20],
        "axis": [1],
        "step": [3],
        "back": [-1],
        "end": [-25],
    }
    constants |= {"minus": [-2], "picks": [3, 3, 0, 19, 7, -1], "twice": [1, 2, 1, 1]}
    width = 8 + 10 + 6 + 7 + 10 + 6
    shapes: Shapes = {
        "w1": (20, 3, 3, 3),
        "b1": (20,),
        "w2": (16, width, 1, 1),
        "b2": (16,),
        "w3": (6, 16, 3, 3),
    }
    return network(text, shapes, **{name: np.array(value) for name, value in constants.items()})


def norms() -> onnx.ModelProto:
    """LRN, LpPool, LpNormalization, AveragePool with padding counted, and BatchNorm before a convolution."""
    text = """(float[N,3,12,12] x) => (float[N,8,6,6] y) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)  b = LRN <size = 3> (a)
        c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (b, w2, b2)  d = Relu (c)
        e = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (d)
        f = LpPool <kernel_shape = [2,2], strides = [2,2]> (e)  g = BatchNormalization (f, s, t, m, var)
        h = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (g, w3, b3)  y = LpNormalization <axis = 1> (h)
    }"""
    shapes: Shapes = {
        "w1": (12, 3, 3, 3),
        "b1": (12,),
        "w2": (24, 12, 3, 3),
        "b2": (24,),
        "s": (24,),
        "t": (24,),
    }
    return network(text, {**shapes, "m": (24,), "var": (24,), "w3": (8, 24, 3, 3), "b3": (8,)})


def matrices() -> onnx.ModelProto:
    """A perceptron of MatMul and Add on three dimensions, Gemm with scales and transposed operands."""
    text = """(float[N,5,12] x) => (float[N,5,6] y, float[7,M] z) {
        a = MatMul (x, w1)  b = Add (a, b1)  c = Relu (b)  d = MatMul (c, w2)  e = Add (b2, d)  f = Erf (e)
        g = MatMul (f, w3)  y = Add (g, b3)
        h = ReduceMean <axes = [1], keepdims = 0> (f)
        i = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (h, w4, b4)
        j = Relu (i)  k = Gemm <transB = 1> (j, w5)  z = Transpose (k)
    }"""
    shapes: Shapes = {
        "w1": (12, 32),
        "b1": (32,),
        "w2": (32, 24),
        "b2": (24,),
        "w3": (24, 6),
        "b3": (1, 1, 6),
    }
    return network(text, {**shapes, "w4": (20, 24), "b4": (1, 20), "w5": (7, 20)})


def half_precision() -> onnx.ModelProto:
    """The old upsampling network in float16 between two casts."""
    text = """(float[N,3,12,12] x) => (float[N,4,10,10] y) {
        h = Cast <to = 10> (x)  a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (h, w1, b1)  b = Relu (a)
        c = Conv <kernel_shape = [3,3]> (b, w2, b2)  d = Relu (c)  e = Conv <kernel_shape = [1,1]> (d, w3)
        y = Cast <to = 1> (e)
    }"""
    shapes: Shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (16, 16, 3, 3),
        "b2": (16,),
        "w3": (4, 16, 1, 1),
    }
    return retyped(network(text, shapes), np.float16)


def double_precision() -> onnx.ModelProto:
    """A perceptron in float64: onnxruntime has no convolution of that type."""
    text = """(double[N,12] x) => (double[N,10] y) {
        a = Gemm <transB = 1> (x, w1, b1)  b = Tanh (a)  c = MatMul (b, w2)  d = Add (c, b2)  e = Relu (d)
        y = Gemm <transB = 1> (e, w3, b3)
    }"""
    shapes: Shapes = {"w1": (32, 12), "b1": (32,), "w2": (32, 24), "b2": (24,), "w3": (10, 24), "b3": (10,)}
    return retyped(network(text, shapes), np.float64)


def retyped(model: onnx.ModelProto, dtype: Any) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    return model


def chained_transposed_convolutions() -> onnx.ModelProto:
    """ConvTranspose with groups, with and without a bias, in one and three dimensions."""
    text = """(float[N,4,9] x, float[N,4,3,3,3] v) => (float[N,4,20] y, float[N,2,7,7,7] z) {
        a = Conv <kernel_shape = [3], pads = [1,1]> (x, w1, b1)  b = Relu (a)
        c = ConvTranspose <kernel_shape = [4], strides = [2], group = 2> (b, w2, b2)  d = Relu (c)
        y = Conv <kernel_shape = [1]> (d, w3)
        e = Conv <kernel_shape = [1,1,1]> (v, w4)  f = Relu (e)
        g = ConvTranspose <kernel_shape = [3,3,3], strides = [2,2,2]> (f, w5)  h = Relu (g)
        z = Conv <kernel_shape = [1,1,1]> (h, w6)
    }"""
    shapes: Shapes = {
        "w1": (16, 4, 3),
        "b1": (16,),
        "w2": (16, 6, 4),
        "b2": (12,),
        "w3": (4, 12, 1),
        "w4": (12, 4, 1, 1, 1),
    }
    return network(text, {**shapes, "w5": (12, 8, 3, 3, 3), "w6": (2, 8, 1, 1, 1)})


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    function.__name__: function
    for function in (
        old_mnist, old_upsample, channels_last, channels_last_flattened, computed_shapes, shape_of_channels,
        shared_weights, constant_weights, quantised, branching, local_functions, middle_outputs, pieces,
        norms, matrices, half_precision, double_precision, chained_transposed_convolutions,
    )
}  # fmt: skip
