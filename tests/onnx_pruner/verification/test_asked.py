"""Inputs that are sizes, counts, axes or thresholds get what the graph asks of them, and no memory is filled."""

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner.verification.asked import fillers
from onnx_shift.onnx_pruner.verification.compare import compare
from onnx_shift.onnx_pruner.verification.probes import Case, _domains
from tests.onnx_pruner.verification.models import parsed


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("(float[2,3,4,5] x, int64[4] n) => (float[A,B,C,D] y)", "y = Tile (x, n)"),
        ("(float[1,3,4,5] x, int64[8] n) => (float[A,B,C,D] y)", "y = Pad <mode = \"reflect\"> (x, n)"),
        ("(float[2,3,4] x, int64[2] n) => (float[12,2] y)", "y = Reshape (x, n)"),
        ("(float[2,3,4] x, int64[3] n) => (float[A,B,C] y)", "y = Reshape (x, n)"),
        ("(int64[4] n) => (float[A,B,C,D] y)", "y = ConstantOfShape (n)"),
        ("(float[3,1] x, int64[3] n) => (float[A,B,C] y)", "y = Expand (x, n)"),
        ("(float[1,1,2,2] x, float[4] n) => (float[1,1,4,6] y)", "y = Resize (x, , n)"),
        ("(float[1,1,2,2] x, int64[4] n) => (float[1,1,3,3] y)", "y = Resize <mode = \"cubic\"> (x, , , n)"),
        ("(float[4,5] x, int64[2] s, int64[2] e, int64[2] a) => (float[A,B] y)", "y = Slice (x, s, e, a)"),
        ("(float[7] x, int64[2] n) => (float[A] y, float[B] z)", "y, z = Split <axis = 0> (x, n)"),
        ("(float[4,5] x, int64[1] n) => (float[A,B] y, int64[A,B] i)", "y, i = TopK (x, n)"),
        ("(int64[3] x, int64 d, float[2] v) => (float[A,B] y)", "y = OneHot (x, d, v)"),
        ("(float[3,2] x, int64[1] n) => (float[A,B] y)", "h = Concat <axis = 0> (n, n) y = Tile (x, h)"),
    ],
    ids=["tile", "pad", "reshape", "freely", "fill", "expand", "scales", "sizes", "slice", "split", "top", "hot", "2"],
)  # fmt: skip
def test_sizes_as_inputs_are_fed(signature: str, body: str) -> None:
    models = [parsed(signature, body) for _ in range(2)]
    assert compare(*models).runtimes[0].inputs == 8


def test_a_size_stays_small_where_more_is_computed_from_it() -> None:
    body = "s = Cast <to = 7> (n) t = Mul (s, s) y = ConstantOfShape (t)"
    model = parsed("(int32[4] n) => (float[A,B,C,D] y)", body)
    assert list(fillers(model.graph, ["n"])) == ["n"]
    drawn = [next(_domains(model.graph)).feeds(Case(index), 0)["n"] for index in range(8)]
    assert max(int(np.max(values)) for values in drawn) == 2
    assert drawn[0].dtype == np.int32


def test_an_ordinary_input_is_not_taken_for_a_size() -> None:
    graph = parsed("(float[N,3] x) => (float[N,3] y)", "y = Relu (x)").graph
    assert fillers(graph, ["x"]) == {}
    assert isinstance(graph, onnx.GraphProto)
