"""A model's signature in the protocol's words."""

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime.portfolio import Signature
from onnx_shift.serving.contract import contract_of


def test_types_and_free_dimensions_are_described() -> None:
    contract = contract_of([Signature("x", "tensor(uint8)", ["N", 3])], [Signature("y", "tensor(string)", [None])])
    assert contract.inputs["x"].described() == {"name": "x", "datatype": "UINT8", "shape": [-1, 3]}
    assert contract.outputs["y"].described() == {"name": "y", "datatype": "BYTES", "shape": [-1]}


def test_requests_share_runs_only_where_every_first_dimension_is_free() -> None:
    free, fixed, scalar = (Signature("x", "tensor(float)", shape) for shape in (["N", 3], [1, 3], []))
    assert [contract_of([free], [other]).batches for other in (free, fixed, scalar)] == [True, False, False]


def test_a_model_that_the_protocol_cannot_carry_is_refused() -> None:
    with pytest.raises(OnnxShiftError, match=r"x: is a seq\(tensor\(float\)\), which the Open Inference Protocol"):
        contract_of([Signature("x", "seq(tensor(float))", [])], [])
