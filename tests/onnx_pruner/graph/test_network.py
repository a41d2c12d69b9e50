"""Opening a model as a graph: what is not sound gives one line."""

import onnx
import onnx.parser
import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from tests.onnx_pruner.conftest import build, refusal, weight
from tests.onnx_pruner.models import model


def test_dangling_input() -> None:
    broken = model()
    broken.graph.node[1].input[0] = "nowhere"
    assert "nowhere" in refusal(broken)


def test_cycle() -> None:
    broken = model()
    broken.graph.node[0].input[0] = "r"
    assert "fails the ONNX checker" in refusal(broken)


def test_unknown_domain() -> None:
    foreign = model()
    foreign.opset_import.add(domain="somebody.else", version=1)
    foreign.graph.node[1].domain = "somebody.else"
    assert "somebody.else" in refusal(foreign)
    pinned = prune(foreign, verify=False)
    assert pinned.report.unchanged
    assert pinned.report.kept[0].reason == "read by Relu 'r' (no rule for operator Relu)"


def test_an_operator_outside_the_standard_is_pruned_around_and_said_to_be_why_nothing_can_be_verified() -> None:
    strange = model(dead=(1, 2, 3, 4))
    strange.graph.node.add(op_type="EfficientNMS_TRT", input=["y"], output=["boxes"])
    strange.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, None))
    result = prune(strange, align=1, verify=False)
    assert result.report.channels_removed == 4
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Relu", "Conv", "EfficientNMS_TRT"]
    assert result.model.graph.node[3].domain == ""
    assert result.model.graph.output[0] == strange.graph.output[0]
    with pytest.raises(PruneError, match=r"leaves that out, and prunes around EfficientNMS_TRT.*cannot run it"):
        prune(strange)


def test_outputs_without_shape_and_domains_without_version_are_taken() -> None:
    contrib = model(dead=(1, 2, 3, 4))
    contrib.graph.node.add(op_type="FastGelu", domain="com.microsoft", input=["y"], output=["z"])
    contrib.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="z"))
    assert prune(contrib, align=1, verify=False).report.channels_removed == 4
    contrib.opset_import.add(domain="com.microsoft", version=1)
    assert prune(contrib, align=1).report.verified


def test_an_attribute_that_the_standard_does_not_know_is_refused() -> None:
    strange = model()
    strange.graph.node[1].attribute.add(name="slope", type=onnx.AttributeProto.FLOAT, f=1)
    assert "slope" in refusal(strange)


def test_weight_of_another_size_than_its_shape() -> None:
    broken = model()
    broken.graph.initializer[0].raw_data = broken.graph.initializer[0].raw_data[:-4]
    assert "w1" in refusal(broken)


def test_weights_that_do_not_fit() -> None:
    broken = model()
    broken.graph.initializer[1].dims[:] = [8, 4, 1, 1]
    assert "Conv 'y' reads 8 channels, its weights are for 4" in refusal(broken)


def test_doubled_initializer() -> None:
    broken = model()
    broken.graph.initializer.append(broken.graph.initializer[0])
    assert "w1" in refusal(broken)


def test_nodes_may_come_in_any_order() -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
        c = Conv(x, w1)
        r = Relu(c)
        s = Add(r, r)
        y = Conv(s, w2)
    }"""
    model = build(text, {"w1": weight(8, 3, 1, 1, dead=(3,)), "w2": weight(4, 8, 1, 1)}, 17)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    result = prune(model, align=1)  # compared with the model as it is
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Relu", "Add", "Conv"]
    assert result.report.channels_removed == 1
    model.graph.node[3].input[0] = "s"
    with pytest.raises(PruneError, match="fails the ONNX checker"):
        prune(model)  # in a circle
