"""Packing models into one portfolio file, which the device opens without any protobuf."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import atomic_open, read_bytes
from onnx_shift.onnx_pruner.graph.network import PruneError, captured_names, payload_bytes, read_model
from onnx_shift.portfolio.profile import Profile
from onnx_shift.portfolio.select import DEFAULT_METRICS, Selection, select
from onnx_shift.runtime.archive import new_member, sha256
from onnx_shift.runtime.portfolio import MODEL, Content, Signature, Tensor, Variant, write_portfolio
from onnx_shift.runtime.skeleton import INSIDE_BYTES, NUMPY_TYPES, append_aligned

_FILE_BYTES = 16 << 20  # tensors are gathered into files of about this size, which a device inflates side by side
_DIRECTIONS = ("smaller", "larger")  # what `switch` takes beside a name


class PackError(OnnxShiftError):
    """Models that cannot make one portfolio."""


def check_name(model: Path) -> None:
    """Raise PackError for a file whose name no variant can have."""
    if model.stem in _DIRECTIONS:
        raise PackError(f"{model}: a variant cannot be called {model.stem!r}, which switch() takes for a direction")


def pack(
    models: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    profile: Profile | None = None,
    max_variants: int | None = None,
    keep_all: bool = False,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Selection:
    """Write the portfolio of `models` to `output`, atomically; the same models give the same bytes.

    A variant is named after its file. With a `profile` only variants that are worth it are kept, chosen by `metrics`,
    at most `max_variants`, unless `keep_all`; its entries become their metadata, beside those the models carry. The
    first score among `metrics` is the accuracy that policies rank by. Returns the selection: what is left out, and why.
    Raises PackError for duplicate names and for models whose inputs or outputs differ, SelectionError as `select`.
    """
    paths = [Path(model) for model in models]
    names = [path.stem for path in paths]
    for index, (path, name) in enumerate(zip(paths, names, strict=True)):
        if name in names[:index]:
            raise PackError(f"{path}: a second model of the name {name!r}; a variant is named after its file")
        check_name(path)
    selection = Selection(tuple(names), {}, (), ())
    measured: Mapping[str, Mapping[str, Any]] = {}
    if profile is not None:
        profile = profile.ranked_by(metrics)
        measured = _measured(profile, paths)
        selection = select(profile, names, max_variants=max_variants, keep_all=keep_all, metrics=metrics)
    elif max_variants is not None and len(names) > max_variants:
        raise PackError(f"{len(names)} models for at most {max_variants} variants: without a profile all are kept")
    kept = [path for path in paths if path.stem in selection.kept]
    if not kept:
        raise PackError(f"{output}: a portfolio needs at least one model")
    variants, contents = [], {}
    signatures: dict[Path, tuple[list[Signature], list[Signature]]] = {}
    for path in kept:
        model = load_model(path)
        given = {tensor.name for tensor in model.graph.initializer}  # an input that one gives is no input
        asked = [value for value in model.graph.input if value.name not in given]
        signatures[path] = _signature(asked), _signature(model.graph.output)
        _check_same(kept[0], path, signatures)
        variant, contents[path.stem] = _variant(path.stem, model, measured.get(path.stem, {}))
        variants.append(variant)
    inputs, outputs = signatures[kept[0]]
    with atomic_open(output) as file:
        write_portfolio(file, variants, contents, inputs, outputs)
    return selection


def _measured(profile: Profile, paths: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
    """Return the profile's entries by name, each model checked to be the one that was measured."""
    missing = [path.stem for path in paths if path.stem not in profile.variants]
    if missing:
        raise PackError(f"the profile does not list {', '.join(missing)}")
    for path in paths:
        stated = profile.variants[path.stem].model_sha256
        if stated is not None and stated != sha256(read_bytes(path)):
            raise PackError(f"{path}: the profile was made of another model of this name; profile again")
    return {path.stem: profile.variants[path.stem].to_dict() for path in paths}


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return the model at `path`, its external data loaded. Raises PackError naming the file."""
    try:
        model = read_model(path).model
    except PruneError as error:
        raise PackError(str(error)) from error
    if not model.graph.output:
        raise PackError(f"{path}: not a model to serve: it has no outputs")
    return model


def _signature(values: Sequence[onnx.ValueInfoProto]) -> list[Signature]:
    """Return `values` as onnxruntime states them."""
    return [Signature(value.name, _runtime_type(value.type), _shape(value.type)) for value in values]


def _runtime_type(type_: onnx.TypeProto) -> str:
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        return f"{kind.removesuffix('_type')}({_element(getattr(type_, kind).elem_type)})"
    if kind == "map_type":
        return f"map({_element(type_.map_type.key_type)},{_runtime_type(type_.map_type.value_type)})"
    inner = getattr(type_, kind).elem_type if kind in ("sequence_type", "optional_type") else None
    name = str(kind).removesuffix("_type").replace("sequence", "seq")
    return name if inner is None else f"{name}({_runtime_type(inner)})"


def _element(type_: int) -> str:
    return str(onnx.TensorProto.DataType.Name(type_)).lower()


def _shape(type_: onnx.TypeProto) -> list[int | str | None]:
    return [
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or None
        for dimension in type_.tensor_type.shape.dim
    ]


def _check_same(first: Path, other: Path, signatures: Mapping[Path, tuple[list[Signature], list[Signature]]]) -> None:
    for kind, ours, theirs in zip(("inputs", "outputs"), signatures[first], signatures[other], strict=True):
        if ours != theirs:
            raise PackError(f"{other}: its {kind} differ from those of {first}: {_text(theirs)}, not {_text(ours)}")


def _text(signatures: Sequence[Signature]) -> str:
    return ", ".join(f"{s.name} {s.type}{s.shape}" for s in signatures)


def _variant(name: str, model: onnx.ModelProto, measured: Mapping[str, Any]) -> tuple[Variant, Content]:
    """Return the variant and its content; takes the large tensors out of `model`."""
    _hoist_constants(model)
    weight_bytes = sum(payload_bytes(tensor) for tensor in model.graph.initializer)
    nonzero_bytes = sum(_nonzero_bytes(tensor) for tensor in model.graph.initializer)
    files: list[bytearray] = []
    tensors = []
    read = {value.name for value in model.graph.output} | set(captured_names(model.graph))
    read.update(name for node in model.graph.node for name in node.input)
    for tensor in model.graph.initializer:
        if tensor.data_type not in NUMPY_TYPES or payload_bytes(tensor) < INSIDE_BYTES:
            continue
        if tensor.name not in read:  # onnxruntime drops it before it could be given
            continue
        if not files or len(files[-1]) >= _FILE_BYTES:
            files.append(bytearray())
        file, raw = _file_name(len(files) - 1), _raw(tensor)
        offset = append_aligned(files[-1], raw)
        _move_outside(tensor, file, offset, len(raw))
        tensors.append(Tensor(tensor.name, NUMPY_TYPES[tensor.data_type], tuple(tensor.dims), file, offset))
    weights = {
        _file_name(index): new_member(f"{name}/{_file_name(index)}", content) for index, content in enumerate(files)
    }
    member = new_member(f"{name}/{MODEL}", model.SerializeToString(deterministic=True))
    content = Content(member, MappingProxyType(weights), tuple(tensors))
    stated = _metadata(model)
    metadata = stated | {key: value for key, value in measured.items() if value is not None or key not in stated}
    return Variant(name, weight_bytes, nonzero_bytes, content.deflated_bytes, "", metadata), content


def _file_name(index: int) -> str:
    return f"weights-{index:03}.bin"


def _raw(tensor: onnx.TensorProto) -> bytes:
    return bytes(tensor.raw_data) if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()


def _nonzero_bytes(tensor: onnx.TensorProto) -> int:
    if tensor.data_type not in NUMPY_TYPES:
        return payload_bytes(tensor)
    values = numpy_helper.to_array(tensor)
    return int(np.count_nonzero(values)) * values.itemsize


def _move_outside(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    """Leave in the tensor where its bytes lie, not the bytes: ONNX's external-data layout."""
    where = {"location": file, "offset": str(offset), "length": str(length)}
    outside = onnx.TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    outside.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in where.items())
    tensor.CopyFrom(outside)


def _hoist_constants(model: onnx.ModelProto) -> None:
    """Make initializers of large Constant nodes of the main graph, so that they can lie outside the model.

    Before IR version 4 initializers had to be listed as inputs; runtimes took them for constants all the same. Unlisted
    they stay constants when a runtime writes its optimised graph.
    """
    graph = model.graph
    if model.ir_version < 4:
        model.ir_version = 4
        given = {tensor.name for tensor in graph.initializer}
        for value in [value for value in graph.input if value.name in given]:
            graph.input.remove(value)
    for node in list(graph.node):
        constant = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and constant is not None and payload_bytes(constant) >= INSIDE_BYTES:
            initializer = graph.initializer.add()
            initializer.CopyFrom(constant)
            initializer.name = node.output[0]
            graph.node.remove(node)


def _metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the model's metadata; what onnx-shift wrote itself without its prefix and as the values they
    are.
    """
    entries: dict[str, Any] = {}
    for entry in model.metadata_props:
        name = entry.key.removeprefix("onnx_shift.")
        try:
            entries[name] = json.loads(entry.value, parse_constant=_refuse) if name != entry.key else entry.value
        except ValueError:
            entries[name] = entry.value
    return entries


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
