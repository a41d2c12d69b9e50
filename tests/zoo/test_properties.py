"""Random graphs over every operator that has a rule: the pruned model is equal in every case, and never larger."""

from zlib import crc32

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.prune import finish, open_source, prune_opened
from onnx_shift.onnx_pruner.rules import PINNED, PINNED_DOMAINS, RULES
from onnx_shift.onnx_pruner.target import GATHER, Fit, Table
from zoo import zeros
from zoo.judge import CANNOT_RUN, feeds, judge, open_model
from zoo.operators import COMMON, GENERATORS, OPSETS, REFERENCE_ONLY
from zoo.random_graphs import Growing

FREE_SIZE = 16


def random_model(operators: list[str], seed: int, opset: int, dtype: type = np.float32) -> onnx.ModelProto:
    """Return a graph that applies the operators in turn, each to recent tensors, with free sizes where it runs so."""
    density = (0.9, 0.5, 0.25)[seed % 3]
    growing = Growing(seed, opset, dtype, density)
    growing.convolved(growing.input)
    for name in operators:
        entry = GENERATORS[name]
        if entry.since <= opset <= entry.until:
            entry.generate(growing)
    model = growing.finish()
    try:
        session = open_model(model)
        session.run(None, feeds(session, 0, 1, 1, FREE_SIZE))
    except CANNOT_RUN:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, size in zip(dims, growing.input.shape, strict=True):
            dim.dim_value = size
    return model


def check(model: onnx.ModelProto, align: int, tolerance: float = 1e-4) -> None:
    onnx.checker.check_model(model, full_check=True)
    pruned = prune(model, align=align, verify=False).model
    judged = judge(model, pruned, tolerance)
    assert judged.cases > 0
    assert judged.error <= 1, f"{judged.error} times what is allowed"
    onnx.checker.check_model(pruned, full_check=True)
    assert zeros.parameters(pruned) <= zeros.parameters(model)


def around(name: str, seed: int) -> tuple[list[str], int]:
    """Return the operator between random others, and an operator set that has it."""
    rng = np.random.default_rng([seed, crc32(name.encode())])
    entry = GENERATORS[name]
    opset = int(rng.choice([opset for opset in OPSETS if entry.since <= opset <= entry.until]))
    before = [str(one) for one in rng.choice(COMMON, rng.integers(0, 4))]
    after = [str(one) for one in rng.choice(COMMON, rng.integers(0, 4))]
    return [*before, name, *after], opset


def test_every_rule_has_a_generator() -> None:
    assert set(RULES) - set(GENERATORS) - set(REFERENCE_ONLY) == set()


def test_every_operator_of_the_standard_has_a_rule_or_a_reason() -> None:
    """Fails when a newer onnx brings operators: give each a rule and a generator, or say why it needs all channels."""
    domains = {schema.domain for schema in onnx.defs.get_all_schemas()}
    assert domains - {"", *PINNED_DOMAINS} == set()
    names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert names - RULES.keys() - PINNED.keys() == set()
    assert PINNED.keys() & RULES.keys() == set()


@pytest.mark.parametrize("name", REFERENCE_ONLY)
def test_an_operator_that_onnxruntime_lacks_is_exact_in_the_reference(name: str) -> None:
    for seed in range(4):
        growing = Growing(seed, REFERENCE_ONLY[name].since)
        growing.convolved(growing.input)
        REFERENCE_ONLY[name].generate(growing)
        model = growing.finish()
        pruned = prune(model, align=1, verify=False).model
        fed = {"x": np.random.default_rng(seed).standard_normal(growing.input.shape).astype(np.float32)}
        for left, right in zip(*(ReferenceEvaluator(one).run(None, fed) for one in (model, pruned)), strict=True):
            np.testing.assert_allclose(right, left, rtol=0, atol=1e-4 * max(np.abs(left).max(initial=0), 1e-2))


@pytest.mark.parametrize("name", GENERATORS)
def test_an_operator_among_others_is_exact(name: str) -> None:
    for seed in range(3):
        operators, opset = around(name, seed)
        check(random_model(operators, seed, opset), align=(1, 1, 4)[seed])


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_an_operator_among_others_is_exact_many_times(name: str) -> None:
    for seed in range(3, 25):
        operators, opset = around(name, seed)
        check(random_model(operators, seed, opset), align=(1, 1, 2, 4)[seed % 4])


@pytest.mark.parametrize("seed", range(20))
def test_half_precision_is_exact(seed: int) -> None:
    operators = [str(one) for one in np.random.default_rng(seed).choice(COMMON, 5)]
    check(random_model(operators, seed, 17, np.float16), align=1, tolerance=5e-3)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (ml_dtypes.bfloat16, 0.1)])
def test_types_that_onnxruntime_lacks_are_exact_in_the_reference(dtype: type, tolerance: float, seed: int) -> None:
    """A residual stream, a branch and a classifier; onnxruntime convolves neither float64 nor bfloat16."""
    growing = Growing(seed, 17, dtype)
    first = growing.convolved(growing.input)
    x = growing.add("Relu", [first], first.shape)
    branch = growing.convolved(x, 3)
    weight = growing.floats(growing.sparse((branch.shape[1], x.shape[1], *[1] * (x.rank - 2))))
    other = growing.add("Conv", [x, weight], branch.shape)
    stream = growing.add("Add", [branch, other], branch.shape)
    y = growing.convolved(growing.add("Concat", [stream, x], (1, branch.shape[1] + x.shape[1], *x.shape[2:]), axis=1))
    flat = growing.add("Flatten", [growing.add("GlobalAveragePool", [y], y.shape)], (1, y.shape[1]), axis=1)
    growing.add("Gemm", [flat, growing.floats(growing.sparse((y.shape[1], 3), 1, 0))], (1, 3))
    model = growing.finish()
    pruned = prune(model, align=1, verify=False).model
    a, b = ReferenceEvaluator(model), ReferenceEvaluator(pruned)
    for scale in (1, 0, 10):
        fed = {"x": (np.random.default_rng(seed).standard_normal(growing.input.shape) * scale).astype(dtype)}
        left, right = (one.run(None, fed)[0].astype(np.float64) for one in (a, b))
        assert left.shape == right.shape
        assert np.max(np.abs(left - right)) <= tolerance * max(np.max(np.abs(left)), 1e-2)
    assert parameters_of_any_type(pruned) < parameters_of_any_type(model)


def parameters_of_any_type(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in zeros.tensors(model).values())


TIMES = {1: 1.0, 3: 9.0, 8: 64.0, 64: 4096.0}
FREE_GATHERS = {GATHER: {7: {1: 1e-6, 64: 1e-4}}, "3x3": {7: TIMES}, "1x1": {7: TIMES}}


@pytest.mark.parametrize("first, last", [(0, 30), pytest.param(30, 400, marks=pytest.mark.slow)])
def test_graphs_with_gathers_wherever_there_is_one_to_be_had_are_exact(first: int, last: int) -> None:
    fit, narrowed = Fit(1, Table("", "", "", 1, {"float32": FREE_GATHERS})), 0
    for seed in range(first, last):
        operators = [str(one) for one in np.random.default_rng(seed).choice(COMMON, 6)]
        opened = open_source(model := random_model([*operators, "Conv", "Add", "Conv"], seed, 17))
        result = finish(opened, prune_opened(opened, fit), verify=False)
        onnx.checker.check_model(result.model, full_check=True)
        assert judge(model, result.model).error <= 1
        assert zeros.parameters(result.model) <= zeros.parameters(model)
        narrowed += bool(result.report.narrowed)
    assert narrowed > (last - first) / 2


graphs = {
    "operators": st.lists(st.sampled_from(sorted({*GENERATORS})) | st.sampled_from(COMMON), min_size=1, max_size=12),
    "seed": st.integers(0, 10_000),
    "opset": st.sampled_from(OPSETS),
    "align": st.sampled_from([1, 4]),
}
profile = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@settings(profile, max_examples=200)
@given(**graphs)
def test_random_graphs_are_exact(operators: list[str], seed: int, opset: int, align: int) -> None:
    check(random_model(operators, seed, opset), align)


@pytest.mark.slow
@settings(profile, max_examples=1000)
@given(**graphs)
def test_many_random_graphs_are_exact(operators: list[str], seed: int, opset: int, align: int) -> None:
    check(random_model(operators, seed + 10_001, opset), align)
