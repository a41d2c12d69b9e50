"""Bytes to arrays and back: every datatype, both encodings, and whatever a client may send instead."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_shift.runtime.portfolio import Signature
from onnx_shift.serving.codec import Request, decode, encode, to_json
from onnx_shift.serving.contract import Contract, contract_of
from onnx_shift.serving.errors import RequestError

NUMBERS = {
    "bool": ("BOOL", np.bool_), "float16": ("FP16", np.float16), "float": ("FP32", np.float32),
    "double": ("FP64", np.float64), "int8": ("INT8", np.int8), "int16": ("INT16", np.int16),
    "int32": ("INT32", np.int32), "int64": ("INT64", np.int64), "uint8": ("UINT8", np.uint8),
    "uint16": ("UINT16", np.uint16), "uint32": ("UINT32", np.uint32), "uint64": ("UINT64", np.uint64),
}  # fmt: skip


def contract(type_: str = "float", shape: tuple[int | str, ...] = ("N", 3)) -> Contract:
    signature = Signature("x", f"tensor({type_})", list(shape))
    return contract_of([signature], [Signature("y", f"tensor({type_})", list(shape))])


FLOATS, INTEGERS = contract(), contract("int32")


def entry(**changes: Any) -> dict[str, Any]:
    whole = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.5, 2, 3], **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def asked(*entries: Mapping[str, Any], **message: Any) -> bytes:
    return json.dumps({"inputs": list(entries), **message}).encode()


def binary(array: np.ndarray, datatype: str, **message: Any) -> tuple[bytes, str]:
    parameters = {"binary_data_size": array.nbytes}
    header = asked(entry(shape=list(array.shape), datatype=datatype, data=..., parameters=parameters), **message)
    return header + array.tobytes(), str(len(header))


@pytest.mark.parametrize(("type_", "datatype", "dtype"), [(key, *value) for key, value in NUMBERS.items()])
def test_every_number_arrives_as_it_was_sent_and_goes_back(type_: str, datatype: str, dtype: Any) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    body, header_length = binary(array, datatype, parameters={"binary_data_output": True})
    request = decode(body, header_length, contract(type_), 10)
    np.testing.assert_array_equal(request.feed["x"], array)
    assert request.feed["x"].dtype == dtype and request.feed["x"].flags.aligned
    again = decode(asked(entry(shape=[2, 3], datatype=datatype, data=array.tolist())), None, contract(type_), 10)
    np.testing.assert_array_equal(again.feed["x"], array)

    raw, length = encode(request, [array], contract(type_), model="m", version="v")
    assert raw[length:] == array.tobytes()
    assert json.loads(raw[:length])["outputs"] == [
        {"name": "y", "datatype": datatype, "shape": [2, 3], "parameters": {"binary_data_size": array.nbytes}}
    ]
    text, none = encode(again, [array], contract(type_), model="m", version="v")
    assert none is None and json.loads(text)["outputs"][0]["data"] == array.ravel().tolist()


def test_the_same_json_before_other_bytes_is_another_request() -> None:
    arrays = [np.full((1, 3), value, np.float32) for value in (1, 2)]
    bodies = [binary(array, "FP32", id="same") for array in arrays]
    requests = [decode(body, length, FLOATS, 10) for body, length in bodies]
    for request, array in zip(requests, arrays, strict=True):
        np.testing.assert_array_equal(request.feed["x"], array)
    with pytest.raises(RequestError, match="the body ends 12 bytes early"):
        decode(bodies[0][0][:-12], bodies[0][1], FLOATS, 10)


def test_strings_arrive_in_both_encodings_and_go_back() -> None:
    words = ["a", "", "naïve"]
    raw = b"".join(struct.pack("<I", len(word.encode())) + word.encode() for word in words)
    header = asked(entry(datatype="BYTES", data=..., parameters={"binary_data_size": len(raw)}))
    for body, length in ((header + raw, str(len(header))), (asked(entry(datatype="BYTES", data=words)), None)):
        request = decode(body, length, contract("string"), 10)
        assert request.feed["x"].tolist() == [words]
        found, _ = encode(request, [request.feed["x"]], contract("string"), model="m", version="v")
        assert json.loads(found)["outputs"][0]["data"] == words
    asked_raw = Request(None, {}, {"y": True})
    found, length_ = encode(asked_raw, [np.array([words], object)], contract("string"), model="m", version="v")
    assert found[length_:] == raw


def test_the_answer_names_the_request_the_model_and_the_variant() -> None:
    request = decode(asked(entry(), id="seven", outputs=[{"name": "y"}]), None, FLOATS, 10)
    body, _ = encode(request, [np.array([[np.nan, 1, 2]], np.float32)], FLOATS, model="m", version="small")
    assert json.loads(body) == {
        "model_name": "m", "model_version": "small", "id": "seven",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [None, 1.0, 2.0]}],
    }  # fmt: skip


def test_each_output_may_be_asked_for_in_its_own_encoding() -> None:
    both = contract_of([], [Signature(name, "tensor(float)", [1]) for name in ("y", "z")])
    outputs = [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}]
    request = decode(asked(outputs=outputs, parameters={"binary_data_output": True}), None, both, 10)
    assert dict(request.outputs) == {"z": False, "y": True} and list(request.outputs) == ["z", "y"]


def refused(
    body: bytes, header_length: str | None = None, contract: Contract = FLOATS, *, most: int = 10
) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, header_length, contract, most)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return caught.value


BAD = {
    "no valid JSON": b"{",
    "no JSON object": b"[]",
    "inputs: must be a list": b"{}",
    "id: must be a string": asked(entry(), id=7),
    "'z': the model has none of that name; there are: x": asked(entry(name="z")),
    "input x: is missing": asked(),
    "input x: is given twice": asked(entry(), entry()),
    "datatype 'INT32', the model takes FP32": asked(entry(datatype="INT32")),
    "shape [3], the model takes [-1, 3]": asked(entry(shape=[3])),
    "shape [1, 4], the model takes": asked(entry(shape=[1, 4])),
    "shape None, the model": asked(entry(shape=...)),
    "shape [True, 3], the model": asked(entry(shape=[True, 3])),
    "shape [-1, 3], where every dimension": asked(entry(shape=[-1, 3])),
    "shape [0, 3], where every dimension": asked(entry(shape=[0, 3], data=[])),
    "its data are missing": asked(entry(data=...)),
    "its data are no list": asked(entry(data=7)),
    "do not fill its shape [1, 3]": asked(entry(data=[1, 2])),
    "data of shape [3, 1] do not fill": asked(entry(data=[[1], [2], [3]])),
    "no regular shape": asked(entry(data=[[1, 2], 3])),
    "not all of FP32": asked(entry(data=["1", 2, 3])),
    "exceed what FP32 holds": asked(entry(data=[1e300, 2, 3])),
    "shared_memory_region is not offered": asked(entry(parameters={"shared_memory_region": "r"})),
    "its parameters are no JSON object": asked(entry(parameters=[])),
    "'w': the model has none": asked(entry(), outputs=[{"name": "w"}]),
    "output y: is asked for twice": asked(entry(), outputs=[{"name": "y"}, {"name": "y"}]),
    "classification is not offered": asked(entry(), outputs=[{"name": "y", "parameters": {"classification": 3}}]),
    "binary_data: 1 is neither": asked(entry(), outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
    "outputs: must be a list": asked(entry(), outputs=7),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_malformed_or_does_not_fit_is_refused_with_the_reason(message: str) -> None:
    error = refused(BAD[message])
    assert error.status == 400 and message in str(error)


NO_INTEGERS = ["[NaN,1,2]", "[1.5,1,2]", "[1e10,1,2]", "[true,1.5,2]", "[99999999999999999999,1,2]", "[null,1,2]"]


@pytest.mark.parametrize("data", NO_INTEGERS)
def test_what_is_no_integer_is_refused_where_the_model_takes_integers(data: str) -> None:
    body = asked(entry(datatype="INT32", data=0)).replace(b'"data": 0', f'"data": {data}'.encode())
    assert refused(body, contract=INTEGERS).status == 400


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "", "９", "9" * 5000, "100000"])
def test_a_header_length_must_be_a_whole_number_inside_the_body(length: str) -> None:
    error = refused(asked(entry()), length)
    assert error.status == 400 and "Inference-Header-Content-Length" in str(error)


def test_raw_bytes_must_be_as_many_as_stated_and_needed() -> None:
    body, length = binary(np.zeros((1, 3), np.float32), "FP32")
    assert "ends 1 bytes early" in str(refused(body[:-1], length))
    assert "1 bytes longer" in str(refused(body + b"!", length))
    assert "12 bytes early" in str(refused(body[: int(length)]))
    short = asked(entry(data=..., parameters={"binary_data_size": 8}))
    assert "8 bytes, but its shape needs 12" in str(refused(short + bytes(8), str(len(short))))
    both = asked(entry(parameters={"binary_data_size": 12}))
    assert "one of them" in str(refused(both + bytes(12), str(len(both))))
    for size in (-1, 1.5, True, "12"):
        bad = asked(entry(data=..., parameters={"binary_data_size": size}))
        assert "no whole number" in str(refused(bad + bytes(12), str(len(bad))))


def test_raw_strings_and_flags_are_checked() -> None:
    bad = {"beyond its bytes": b"\xff\xff\xff\xffab", "no UTF-8": b"\1\0\0\0\xff", "1 strings": bytes(4)}
    for message, raw in bad.items():
        header = asked(entry(datatype="BYTES", data=..., parameters={"binary_data_size": len(raw)}))
        assert message in str(refused(header + raw, str(len(header)), contract("string")))
    body, length = binary(np.array([[0, 1, 2]], np.uint8), "BOOL")
    assert "0 or 1" in str(refused(body, length, contract("bool")))


def test_a_batch_above_the_limit_is_413() -> None:
    error = refused(asked(entry(shape=[3, 3], data=[0] * 9)), most=2)
    assert error.status == 413 and "3 rows, above the limit of 2" in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id", "binary_data_size"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "datatype": st.sampled_from(["FP32", "INT32", "BYTES", "BOOL"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | st.just([1, 3]) | JSON,
        "data": st.lists(st.integers() | st.floats(), max_size=4) | JSON,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 20)) | JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {}, optional={"inputs": st.lists(ENTRY, max_size=2) | JSON, "outputs": JSON, "id": JSON}
)
BODY = st.binary(max_size=40) | st.builds(
    lambda message, rest: json.dumps(message).encode() + rest, MESSAGE | JSON, st.just(b"") | st.binary(max_size=20)
)
LENGTH = st.none() | st.integers(-1, 60).map(str) | st.text(max_size=4)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(BODY, LENGTH, st.sampled_from(["float", "int32", "string", "bool"]))
def test_any_body_is_a_request_or_a_refusal_many(body: bytes, length: str | None, type_: str) -> None:
    check_any_body(body, length, type_)


@settings(max_examples=200, deadline=None)
@given(BODY, LENGTH, st.sampled_from(["float", "int32", "string", "bool"]))
def test_any_body_is_a_request_or_a_refusal(body: bytes, length: str | None, type_: str) -> None:
    check_any_body(body, length, type_)


def check_any_body(body: bytes, length: str | None, type_: str) -> None:
    try:
        request = decode(body, length, contract(type_), 10)
    except RequestError as error:
        assert error.status in (400, 413) and json.loads(to_json({"error": str(error)}))
    else:
        assert request.feed["x"].shape[1] == 3
