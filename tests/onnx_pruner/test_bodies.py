"""Bodies of If, Loop and Scan: pruned by their own weights and by those that they capture."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnx_shift.onnx_pruner import PruneResult, prune
from tests.onnx_pruner.conftest import Array, bias, weight
from zoo.judge import judge

DEAD = (0, 3, 5)


def layer(p: str, source: str, result: str) -> str:
    return (f"{p}a = Conv<pads=[1,1,1,1]>({source}, {p}w1, {p}b1) {p}r = Relu({p}a) "
            f"{p}o = Conv({p}r, {p}w2) {result} = Tanh({p}o)")  # fmt: skip


def weights(p: str, seed: int = 0) -> dict[str, Array]:
    """Eight filters of which three are zero and one is unread; the constants cannot pass padding, nor need they."""
    return {
        f"{p}w1": weight(8, 3, 3, 3, dead=DEAD, seed=seed), f"{p}b1": bias(8),
        f"{p}w2": weight(3, 8, 1, 1, unread=(6,), seed=seed + 1),
    }  # fmt: skip


def model(text: str, inside: dict[str, Array], outside: dict[str, Array]) -> onnx.ModelProto:
    """A model from its text; weights `inside` go into the body that reads them, the others into the graph."""
    made = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{text}')
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in outside.items())
    for graph in bodies(made.graph):
        read = {name for node in graph.node for name in node.input}
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in inside.items() if n in read)
    return made


def bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g
                yield from bodies(attribute.g)


def pruned(made: onnx.ModelProto, layers: int, removed: int) -> PruneResult:
    onnx.checker.check_model(made)
    before = made.SerializeToString(deterministic=True)
    result = prune(made, align=1, verify=False)
    assert made.SerializeToString(deterministic=True) == before, "the argument was edited"
    onnx.checker.check_model(result.model)
    assert judge(made, result.model).error <= 1
    assert len(result.report.layers) == layers
    assert result.report.channels_removed == removed
    assert result.report.parameters_after < result.report.parameters_before
    names = [tensor.name for graph in (result.model.graph, *bodies(result.model.graph)) for tensor in graph.initializer]
    assert len(names) == len(set(names))
    return result


IF = f"""g (float[N,3,6,6] x, bool flag) => (float[N,3,6,6] y) {{
    y = If(flag) <
        then_branch: graph = t () => (float[N,3,H,W] ty) {{ {layer("t", "x", "ty")} }},
        else_branch: graph = e () => (float[N,3,H,W] ey) {{ {layer("e", "x", "ey")} }}
    >
}}"""


def test_both_branches_lose_channels_of_their_own_weights() -> None:
    result = pruned(model(IF, {**weights("t"), **weights("e", 5)}, {}), layers=4, removed=2 * 4)
    names = [change.name for change in result.report.layers]
    assert sorted(name.split(" (")[1] for name in names) == ["else_branch of If)"] * 2 + ["then_branch of If)"] * 2
    shapes = {t.name: list(t.dims) for graph in bodies(result.model.graph) for t in graph.initializer}
    assert shapes["tw1"] == shapes["ew1"] == [4, 3, 3, 3]


def test_captured_weights_leave_the_graph_for_the_branch() -> None:
    result = pruned(model(IF, {}, {**weights("t"), **weights("e", 5)}), layers=4, removed=2 * 4)
    assert not [tensor for tensor in result.model.graph.initializer if len(tensor.dims) == 4]


def test_a_weight_that_both_capture_is_not_kept_thrice() -> None:
    text = IF.replace("ew1", "tw1").replace("eb1", "tb1").replace("ew2", "tw2")
    made = model(text, {}, weights("t"))
    result = prune(made, align=1, verify=False)
    assert judge(made, result.model).error <= 1
    assert result.report.parameters_after <= result.report.parameters_before


def test_captured_activations_stay_whole_and_the_graph_around_is_pruned() -> None:
    text = f"""g (float[N,3,6,6] x, bool flag) => (float[N,3,6,6] y) {{
        {layer("o", "x", "h")}
        z = If(flag) <
            then_branch: graph = t () => (float[N,3,H,W] ty) {{ {layer("t", "h", "ty")} }},
            else_branch: graph = e () => (float[N,3,H,W] ey) {{ ey = Neg(h) }}
        >
        y = Add(z, h)
    }}"""
    pruned(model(text, weights("t"), weights("o", 5)), layers=4, removed=2 * 4)


def test_a_branch_within_a_branch() -> None:
    text = f"""g (float[N,3,6,6] x, bool flag, bool other) => (float[N,3,6,6] y) {{
        y = If(flag) <
            then_branch: graph = t () => (float[N,3,H,W] ty) {{
                {layer("t", "x", "th")}
                ty = If(other) <
                    then_branch: graph = i () => (float[N,3,H,W] iy) {{ {layer("i", "th", "iy")} }},
                    else_branch: graph = j () => (float[N,3,H,W] jy) {{ jy = Neg(th) }}
                >
            }},
            else_branch: graph = e () => (float[N,3,H,W] ey) {{ ey = Abs(x) }}
        >
    }}"""
    pruned(model(text, {**weights("t"), **weights("i", 5)}, {}), layers=4, removed=2 * 4)


@pytest.mark.parametrize("captured", [False, True])
def test_the_body_of_a_loop(captured: bool) -> None:
    text = f"""g (float[N,3,6,6] x) => (float[N,3,6,6] y, float[S,N,3,6,6] all) {{
        n = Constant<value = int64 {{3}}>() go = Constant<value = bool {{1}}>()
        y, all = Loop(n, go, x) <
            body: graph = b (int64 i, bool c, float[N,3,6,6] s) => (bool d, float[N,3,6,6] t, float[N,3,6,6] u) {{
                d = Identity(c) {layer("b", "s", "t")} u = Neg(t)
            }}
        >
    }}"""
    inside, outside = ({}, weights("b")) if captured else (weights("b"), {})
    pruned(model(text, inside, outside), layers=2, removed=4)


def test_the_body_of_a_scan() -> None:
    text = """g (float[7,3,5] x) => (float[7,3,5] y) {
        z = Constant<value_float=0.0>() sh = Constant<value_ints=[3,5]>() s0 = Expand(z, sh)
        last, y = Scan(s0, x) <
            num_scan_inputs: int = 1,
            body: graph = b (float[3,5] s, float[3,5] i) => (float[3,5] t, float[3,5] o) {
                j = MatMul(i, bw1) k = Relu(j) l = MatMul(k, bw2) t = Add(s, l) o = Tanh(t)
            }
        >
    }"""
    first = weight(5, 8)
    first[:, [1, 4]] = 0
    pruned(model(text, {"bw1": first, "bw2": weight(8, 5, dead=(6,))}, {}), layers=2, removed=3)


def test_names_of_new_weights_are_no_others() -> None:
    """A bias made in a branch would be called as one that the graph has."""
    made = model(IF.replace(", tb1)", ")"), {**weights("t"), **weights("e", 5)}, {})
    made.graph.input.append(onnx.helper.make_tensor_value_info("tw2_bias", onnx.TensorProto.FLOAT, [1]))
    made.graph.node.append(onnx.helper.make_node("Neg", ["tw2_bias"], ["u"]))
    made.graph.output.append(onnx.helper.make_tensor_value_info("u", onnx.TensorProto.FLOAT, [1]))
    result = prune(made, align=1, verify=False)
    assert judge(made, result.model).error <= 1
