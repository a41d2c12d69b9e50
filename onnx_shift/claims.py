"""The accuracy that a model's metadata claim: whether it was measured on the weights that the model holds.

Beside `onnx_shift.accuracy` stands the hash of the weights it was measured on. It does not depend on names, order or
where weights lie, so packing keeps it; whoever changes weights and makes sure that the outputs are equal renews it.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

ACCURACY = "onnx_shift.accuracy"
MEASURED_ON = "onnx_shift.accuracy_weights_sha256"


def claimed_accuracy(model: "ModelProto") -> float | None:
    """Return the accuracy, 0..1, that the metadata claim; None without one, and where the weights are others by now.

    Of a model without a hash, which others may have made, it is taken as it is.
    """
    entries = _entries(model)
    if is_stale(model):
        return None
    try:
        accuracy = float(entries.get(ACCURACY, "nan"))
    except ValueError:
        return None
    return accuracy if math.isfinite(accuracy) else None


def is_stale(model: "ModelProto") -> bool:
    """Whether the metadata state an accuracy that was measured on other weights than the model holds."""
    entries = _entries(model)
    return ACCURACY in entries and MEASURED_ON in entries and entries[MEASURED_ON] != weights_sha256(model)


def renew_claim(model: "ModelProto") -> None:
    """Note that the accuracy in the metadata, if there is any, holds for the weights of `model`."""
    if ACCURACY not in _entries(model):
        return
    for entry in list(model.metadata_props):
        if entry.key == MEASURED_ON:
            model.metadata_props.remove(entry)
    model.metadata_props.add(key=MEASURED_ON, value=weights_sha256(model))


def weights_sha256(model: "ModelProto") -> str:
    """Return the SHA-256 of all tensors, also of inner graphs and Constant nodes, sorted by their own hashes."""
    return hashlib.sha256("\n".join(sorted(map(_tensor_sha256, _tensors(model.graph)))).encode()).hexdigest()


def _entries(model: "ModelProto") -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                yield from _tensors(inner)


def _tensor_sha256(tensor: "TensorProto") -> str:
    from onnx import numpy_helper

    raw = tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()
    digest = hashlib.sha256(f"{tensor.data_type} {list(tensor.dims)}\n".encode())
    digest.update(raw)
    return digest.hexdigest()
