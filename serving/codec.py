"""The Open Inference Protocol and its binary tensor extension: bytes to arrays and back, without any input or output.

Source: the protocol's own pages, "Open Inference Protocol" of KServe and "Binary Tensor Data Extension" of Triton.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from onnx_shift.serving.contract import BYTES, Contract, TensorType
from onnx_shift.serving.errors import RequestError, shown

Array = np.ndarray[Any, Any]

_LENGTH_DIGITS = 18
_KEPT_HEADER_BYTES = 1024
# What would change the answer and is not offered: refused, where other parameters are hints and left alone.
_NOT_OFFERED = ("classification", "sequence_id", "shared_memory_region")
_LENGTH_PREFIX = np.dtype("<u4")


@dataclass(frozen=True)
class Request:
    """What a client asks: a feed for the model, and which outputs it wants, each as JSON or (True) as raw bytes."""

    id: str | None
    feed: Mapping[str, Array]
    outputs: Mapping[str, bool]


@dataclass(frozen=True)
class _Raw:
    """An input whose raw bytes follow the JSON."""

    tensor: TensorType
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class _Header:
    """What the JSON of a request says: the inputs that it holds, and those that follow it, in their order."""

    id: str | None
    feed: Mapping[str, Array]
    raw: Sequence[_Raw]
    outputs: Mapping[str, bool]


def decode(body: bytes, header_length: str | None, contract: Contract, max_batch: int) -> Request:
    """Return the request in `body`, whose JSON ends after `header_length` bytes (None: it is all of it).

    Raises RequestError: 400 for what is malformed or not what the contract asks for, 413 above `max_batch` rows.
    """
    offset = _header_bytes(header_length, len(body))
    if header_length is not None and offset <= _KEPT_HEADER_BYTES:
        header = _kept_header(body[:offset], contract, max_batch)
    else:
        header = _header(memoryview(body)[:offset], contract, max_batch)
    feed = dict(header.feed)
    for raw in header.raw:
        feed[raw.tensor.name] = _from_bytes(body, offset, raw)
        offset += raw.size_bytes
    if offset != len(body):
        raise _bad(f"the body is {len(body) - offset} bytes longer than its inputs state")
    return Request(header.id, feed, header.outputs)


def _header(text: bytes | memoryview, contract: Contract, max_batch: int) -> _Header:
    try:
        message = orjson.loads(text)
    except ValueError as error:
        raise _bad(f"the request is no valid JSON ({error})") from error
    if not isinstance(message, dict):
        raise _bad("the request is no JSON object")
    request_id = message.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise _bad("id: must be a string")
    parameters = _parameters(message, "the request")
    found: dict[str, Array | _Raw] = {}
    for entry in _entries(message, "inputs"):
        tensor = _named(entry, "input", contract.inputs)
        if tensor.name in found:
            raise _bad(f"input {tensor.name}: is given twice")
        found[tensor.name] = _input(entry, tensor, max_batch)
    missing = next((name for name in contract.inputs if name not in found), None)
    if missing is not None:
        raise _bad(f"input {missing}: is missing")
    feed = {name: value for name, value in found.items() if not isinstance(value, _Raw)}
    raw = [value for value in found.values() if isinstance(value, _Raw)]
    return _Header(request_id, feed, raw, _outputs(message, parameters, contract))


# A client that sends raw bytes sends the same JSON before them again and again.
_kept_header = lru_cache(64)(_header)


def encode(
    request: Request, arrays: Sequence[Array], contract: Contract, *, model: str, version: str
) -> tuple[bytes, int | None]:
    """Return the body that answers `request` with `arrays`, in its order of outputs, and the length of its JSON where
    raw bytes follow.
    """
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for (name, binary), array in zip(request.outputs.items(), arrays, strict=True):
        tensor = contract.outputs[name]
        output: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": list(array.shape)}
        if binary:
            data = _string_bytes(array) if tensor.datatype == BYTES else array.tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            output["data"] = _strings(array) if tensor.datatype == BYTES else np.ascontiguousarray(array).ravel()
        outputs.append(output)
    message: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        message["id"] = request.id
    message["outputs"] = outputs
    header = to_json(message)
    return (b"".join((header, *raw)), len(header)) if raw else (header, None)


def to_json(message: Mapping[str, Any]) -> bytes:
    """Return `message` as JSON; what is no number in an array becomes null."""
    return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)


def _bad(message: str) -> RequestError:
    return RequestError(400, message)


def _header_bytes(text: str | None, body_bytes: int) -> int:
    if text is None:
        return body_bytes
    if not (text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS):
        raise _bad(f"Inference-Header-Content-Length: {shown(text)} is no whole number")
    if int(text) > body_bytes:
        raise _bad(f"Inference-Header-Content-Length: {text} is more than the body's {body_bytes} bytes")
    return int(text)


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _bad(f"{where}: its parameters are no JSON object")
    for name in _NOT_OFFERED:
        if parameters.get(name):
            raise _bad(f"{where}: the parameter {name} is not offered here")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _bad(f"{name}: {shown(value)} is neither true nor false")
    return value


def _entries(message: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = message.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _bad(f"{key}: must be a list of JSON objects")
    return entries


def _named(entry: Mapping[str, Any], kind: str, known: Mapping[str, TensorType]) -> TensorType:
    name = entry.get("name")
    if not isinstance(name, str) or name not in known:
        raise _bad(f"{kind} {shown(name)}: the model has none of that name; there are: {', '.join(known)}")
    return known[name]


def _outputs(message: Mapping[str, Any], parameters: Mapping[str, Any], contract: Contract) -> Mapping[str, bool]:
    binary = _flag(parameters, "binary_data_output", False)
    if not message.get("outputs"):
        return dict.fromkeys(contract.outputs, binary)
    wanted: dict[str, bool] = {}
    for entry in _entries(message, "outputs"):
        tensor = _named(entry, "output", contract.outputs)
        if tensor.name in wanted:
            raise _bad(f"output {tensor.name}: is asked for twice")
        wanted[tensor.name] = _flag(_parameters(entry, f"output {tensor.name}"), "binary_data", binary)
    return wanted


# --- inputs -------------------------------------------------------------------------------------------------


def _input(entry: Mapping[str, Any], tensor: TensorType, max_batch: int) -> Array | _Raw:
    if entry.get("datatype") != tensor.datatype:
        raise _bad(f"input {tensor.name}: datatype {shown(entry.get('datatype'))}, the model takes {tensor.datatype}")
    shape = _shape(entry.get("shape"), tensor, max_batch)
    size_bytes = _parameters(entry, f"input {tensor.name}").get("binary_data_size")
    if size_bytes is None:
        if "data" not in entry:
            raise _bad(f"input {tensor.name}: its data are missing")
        return _from_json(entry["data"], shape, tensor)
    if "data" in entry:
        raise _bad(f"input {tensor.name}: has data and a binary_data_size; one of them, please")
    if type(size_bytes) is not int or size_bytes < 0:
        raise _bad(f"input {tensor.name}: binary_data_size {shown(size_bytes)} is no whole number")
    needed_bytes = math.prod(shape) * tensor.dtype.itemsize
    if tensor.datatype != BYTES and size_bytes != needed_bytes:
        raise _bad(f"input {tensor.name}: {size_bytes} bytes, but its shape needs {needed_bytes}")
    return _Raw(tensor, shape, size_bytes)


def _shape(stated: object, tensor: TensorType, max_batch: int) -> tuple[int, ...]:
    if not isinstance(stated, list) or len(stated) != len(tensor.shape):
        raise _other_shape(stated, tensor)
    for size, ours in zip(stated, tensor.shape, strict=True):
        if type(size) is not int or ours not in (-1, size):
            raise _other_shape(stated, tensor)
        if size < 1:
            raise _bad(f"input {tensor.name}: shape {shown(stated)}, where every dimension must be 1 or more")
    if stated and tensor.shape[0] == -1 and stated[0] > max_batch:
        raise RequestError(413, f"input {tensor.name}: a batch of {stated[0]} rows, above the limit of {max_batch}")
    return tuple(stated)


def _other_shape(stated: object, tensor: TensorType) -> RequestError:
    return _bad(f"input {tensor.name}: shape {shown(stated)}, the model takes {list(tensor.shape)}")


def _from_bytes(body: bytes, offset: int, raw: _Raw) -> Array:
    tensor, end = raw.tensor, offset + raw.size_bytes
    if end > len(body):
        raise _bad(f"input {tensor.name}: the body ends {end - len(body)} bytes early")
    if tensor.datatype == BYTES:
        return _strings_from_bytes(memoryview(body)[offset:end], raw.shape, tensor)
    if tensor.datatype == "BOOL" and np.frombuffer(body, np.uint8, raw.size_bytes, offset).max() > 1:
        raise _bad(f"input {tensor.name}: a BOOL is one byte, 0 or 1")
    array: Array = np.ndarray(raw.shape, tensor.dtype, body, offset)
    return array if array.flags.aligned else array.copy()


def _from_json(data: object, shape: tuple[int, ...], tensor: TensorType) -> Array:
    if not isinstance(data, list):
        raise _bad(f"input {tensor.name}: its data are no list")
    try:
        found = np.array(data, object if tensor.datatype == BYTES else None)
    except (ValueError, OverflowError) as error:
        raise _bad(f"input {tensor.name}: its data are of no regular shape") from error
    if found.size != math.prod(shape) or (found.ndim > 1 and found.shape != shape):
        raise _bad(f"input {tensor.name}: data of shape {list(found.shape)} do not fill its shape {list(shape)}")
    if tensor.datatype == BYTES:
        if not all(isinstance(value, str) for value in found.flat):
            raise _bad(f"input {tensor.name}: BYTES in JSON are strings")
        return found.reshape(shape)
    return _cast(found, tensor).reshape(shape)


def _cast(found: Array, tensor: TensorType) -> Array:
    """Return `found` in the tensor's type, where every value can be that."""
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[tensor.dtype.kind]
    if found.dtype.kind not in kinds:
        raise _bad(f"input {tensor.name}: its data are not all of {tensor.datatype}")
    if tensor.dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = found.astype(tensor.dtype)
        fits = bool(np.isfinite(cast).all())
    else:
        cast = found.astype(tensor.dtype)
        limits = None if tensor.dtype.kind == "b" else np.iinfo(tensor.dtype)
        fits = limits is None or bool(int(found.min()) >= limits.min and int(found.max()) <= limits.max)
    if not fits:
        raise _bad(f"input {tensor.name}: its data exceed what {tensor.datatype} holds")
    return cast


# --- strings ------------------------------------------------------------------------------------------------


def _strings_from_bytes(data: memoryview, shape: tuple[int, ...], tensor: TensorType) -> Array:
    """Return the strings in `data`, each after its length in four bytes."""
    values: list[str] = []
    offset = 0
    while offset < len(data):
        begin = offset + _LENGTH_PREFIX.itemsize
        length = int(np.frombuffer(data[offset:begin].tobytes(), _LENGTH_PREFIX)[0]) if begin <= len(data) else 0
        offset = begin + length
        if offset > len(data):
            raise _bad(f"input {tensor.name}: its last string ends beyond its bytes")
        try:
            values.append(str(data[begin:offset], "utf-8"))
        except UnicodeDecodeError as error:
            raise _bad(f"input {tensor.name}: a string is no UTF-8") from error
    if len(values) != math.prod(shape):
        raise _bad(f"input {tensor.name}: {len(values)} strings, but its shape needs {math.prod(shape)}")
    return np.array(values, object).reshape(shape)


def _strings(array: Array) -> list[str]:
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in array.flat]


def _string_bytes(array: Array) -> bytes:
    parts = []
    for value in array.flat:
        text = value if isinstance(value, bytes) else str(value).encode()
        parts += [len(text).to_bytes(4, "little"), text]
    return b"".join(parts)
