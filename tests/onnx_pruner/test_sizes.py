"""Sizes worked out at run time: readers get the numbers they need, and no node more than that takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.onnx_pruner.conftest import ints, weight

Exact = Callable[..., Any]
SCALARS = {name: np.asarray(k, np.int64) for k, name in enumerate(("zero", "one", "two", "three"))}


def used(text: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if name in text}


def constants(model: onnx.ModelProto) -> list[list[int]]:
    """Integers among the initializers."""
    whole = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64]
    return sorted(onnx.numpy_helper.to_array(t).reshape(-1).tolist() for t in whole)


def optimised_operators(model: onnx.ModelProto, path: str) -> list[str]:
    """What onnxruntime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = path
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def test_readers_of_other_entries_are_left_alone(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y, int64[2] sizes, int64 batch) {
        a = Conv(x, w1)
        s = Shape(a)
        sizes = Slice(s, starts, ends)
        batch = Gather(s, zero)
        y = Conv(a, w2)
    }"""
    arrays = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1), "starts": ints(2),
              "ends": ints(4), "zero": SCALARS["zero"]}  # fmt: skip
    pruned = exact(text, arrays)
    assert pruned.weight("a")[0] == 6
    assert pruned.operators() == ["Conv", "Shape", "Slice", "Gather", "Conv"]


@pytest.mark.parametrize(
    "asks",
    [
        "z = Gather(s, one)",
        "p = Slice(s, ones, twos) z = Squeeze(p, zeros)",
        "t = Identity(s) z = Gather(t, one)",
    ],
)
def test_the_channel_count_becomes_a_constant(exact: Exact, asks: str) -> None:
    text = f"""g (float[N,3,H,W] x) => (float[N,4,P,Q] y, int64 v) {{
        a = Conv(x, w1)
        s = Shape(a)
        {asks}
        v = Mul(z, three)
        y = Conv(a, w2)
    }}"""
    arrays = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1), **SCALARS,
              "zeros": ints(0), "ones": ints(1), "twos": ints(2)}  # fmt: skip
    pruned = exact(text, used(text, arrays))
    assert pruned.operators() == ["Conv", "Mul", "Conv"]
    assert constants(pruned.model) == [[3], [8]]


def test_a_shape_that_is_an_output_says_what_it_did(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y, int64[4] s, int64[3] j, float[4] f) {
        a = Conv(x, w1)
        s = Shape(a)
        f = Cast<to=1>(s)
        n = Slice(s, zeros, twos)
        j = Concat<axis=0>(n, ones)
        y = Conv(a, w2)
    }"""
    arrays = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1), "zeros": ints(0),
              "ones": ints(1), "twos": ints(2)}  # fmt: skip
    pruned = exact(text, arrays)
    assert pruned.weight("a")[0] == 6
    assert [output.name for output in pruned.model.graph.output] == ["y", "s", "j", "f"]


def test_a_target_joined_from_parts_gets_a_constant_part(exact: Exact, tmp_path: Any) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {
        a = Conv(x, w1)
        s = Shape(a)
        n0 = Gather(s, zero)
        c0 = Gather(s, one)
        h0 = Gather(s, two)
        w0 = Gather(s, three)
        n = Unsqueeze(n0, zeros)
        c = Unsqueeze(c0, zeros)
        h = Unsqueeze(h0, zeros)
        w = Unsqueeze(w0, zeros)
        flat = Concat<axis=0>(n, eight, minus)
        f = Reshape(a, flat)
        r = Tanh(f)
        whole = Concat<axis=0>(n, c, h, w)
        b = Reshape(r, whole)
        y = Conv(b, w2)
    }"""
    arrays = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1), **SCALARS,
              "zeros": ints(0), "minus": ints(-1), "eight": ints(8)}  # fmt: skip
    pruned = exact(text, arrays)
    assert pruned.weight("a")[0] == 6
    assert pruned.operators() == [node.op_type for node in pruned.source.graph.node]
    assert [6] in constants(pruned.model)
    assert [8] not in constants(pruned.model)
    optimised = optimised_operators(pruned.model, str(tmp_path / "optimised.onnx"))
    assert optimised == optimised_operators(pruned.source, str(tmp_path / "optimised.onnx"))
    assert optimised.count("Concat") == 1  # the first target became a constant


def test_the_present_count_needs_no_correction(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {
        a = Conv(x, w1)
        s = Shape(a)
        m = GlobalAveragePool(a)
        e = Expand(m, s)
        t = Mul(a, e)
        y = Conv(t, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1)})
    assert pruned.weight("a")[0] == 6
    assert pruned.operators() == ["Conv", "Shape", "GlobalAveragePool", "Expand", "Mul", "Conv"]


def test_arithmetic_on_a_whole_shape_is_given_the_old_count(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y, int64[4] d) {
        a = Conv(x, w1)
        s = Shape(a)
        d = Add(s, s)
        y = Conv(a, w2)
    }"""
    pruned = exact(text, {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1)})
    assert pruned.operators() == ["Conv", "Shape", "Mul", "Add", "Add", "Conv"]


def test_a_target_that_is_computed_gets_one_correction(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {
        a = Conv(x, w1)
        s = Shape(a)
        i = Mul(s, units)
        m = GlobalAveragePool(a)
        e = Expand(m, i)
        y = Conv(e, w2)
    }"""
    arrays = {
        "w1": weight(8, 3, 1, 1, dead=(2, 5)),
        "w2": weight(4, 8, 1, 1, seed=1),
        "units": ints(1, 1, 1, 1),
    }
    pruned = exact(text, arrays)
    assert pruned.weight("a")[0] == 6
    assert pruned.operators().count("Mul") == 3  # the model's own, the old count for it, the new one behind it


def test_a_shape_turned_into_a_column_is_given_the_old_count(exact: Exact) -> None:
    text = """g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {
        a = Conv(x, w1)
        s = Shape(a)
        column = Unsqueeze(s, one)
        i = Reshape(column, all)
        m = GlobalAveragePool(a)
        e = Expand(m, i)
        y = Conv(e, w2)
    }"""
    arrays = {"w1": weight(8, 3, 1, 1, dead=(2, 5)), "w2": weight(4, 8, 1, 1, seed=1)}
    pruned = exact(text, {**arrays, "one": ints(1), "all": ints(-1)})
    assert pruned.weight("a")[0] == 6
