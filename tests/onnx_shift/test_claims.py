from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.claims import MEASURED_ON, claimed_accuracy, is_stale, renew_claim, weights_sha256


def linear(
    *, as_constant: bool = False, as_floats: bool = False, name: str = "w", scale: float = 1.0
) -> onnx.ModelProto:
    """Return y = x @ w that claims an accuracy of 0.75."""
    values = scale * np.arange(600, dtype=np.float32).reshape(2, 300)
    weight = numpy_helper.from_array(values, name)
    if as_floats:
        weight = helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.ravel().tolist())
    nodes = [helper.make_node("MatMul", ["x", name], ["y"])]
    if as_constant:
        nodes.insert(0, helper.make_node("Constant", [], [name], value=weight))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 300])],
        [] if as_constant else [weight],
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"onnx_shift.accuracy": "0.75"})
    return model


def test_a_claim_holds_for_the_weights_that_it_was_measured_on() -> None:
    model = linear()
    assert claimed_accuracy(model) == 0.75  # without a hash it is taken as it is
    renew_claim(model)
    assert claimed_accuracy(model) == 0.75 and not is_stale(model)
    model.graph.initializer[0].raw_data = b"\1" + model.graph.initializer[0].raw_data[1:]
    assert claimed_accuracy(model) is None and is_stale(model)
    renew_claim(model)
    assert claimed_accuracy(model) == 0.75
    assert [entry.key for entry in model.metadata_props].count(MEASURED_ON) == 1


def test_names_places_and_encodings_do_not_matter_and_values_do(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    alike = [linear(as_constant=True), linear(as_floats=True), linear(name="other"), onnx.load(tmp_path / "m.onnx")]
    assert {weights_sha256(model) for model in alike} == {weights_sha256(linear())}
    assert weights_sha256(linear(scale=2.0)) != weights_sha256(linear())


def test_what_claims_nothing_is_left_alone() -> None:
    model = linear()
    helper.set_model_props(model, {})
    renew_claim(model)
    assert claimed_accuracy(model) is None and not model.metadata_props
    for text in ("", "much", "nan"):
        helper.set_model_props(model, {"onnx_shift.accuracy": text})
        assert claimed_accuracy(model) is None
