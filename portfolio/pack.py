"""Packing models into one portfolio file, which the device opens without any protobuf."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_shift.claims import claimed_accuracy
from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import atomic_open
from onnx_shift.onnx_pruner.graph.inner import captured_names
from onnx_shift.onnx_pruner.graph.network import payload_bytes
from onnx_shift.onnx_pruner.graph.reading import PruneError, read_model
from onnx_shift.portfolio.inputs import Model, Source, open_sources
from onnx_shift.portfolio.profile import Profile
from onnx_shift.portfolio.select import DEFAULT_METRICS, Selection, select
from onnx_shift.portfolio.unify import unify_free_dimensions
from onnx_shift.runtime.archive import new_member
from onnx_shift.runtime.content import MODEL, Content, Tensor
from onnx_shift.runtime.portfolio import Signature, Variant, write_portfolio
from onnx_shift.runtime.signing import Key, check_signing_key
from onnx_shift.runtime.skeleton import INSIDE_BYTES, NUMPY_TYPES, append_aligned

_FILE_BYTES = 16 << 20  # tensors are gathered into files of about this size, which a device inflates side by side
_OF_ACCURACY = ("accuracy", "accuracy_claimed", "top5", "images", "classes")
Sides = tuple[list[Signature], list[Signature]]
_DIRECTIONS = ("smaller", "larger")  # what `switch` takes beside a name


class PackError(OnnxShiftError):
    """Models that cannot make one portfolio."""


def check_name(model: Path, name: str) -> None:
    """Raise PackError for a name that no variant can have."""
    if name in _DIRECTIONS:
        raise PackError(f"{model}: a variant cannot be called {name!r}, which switch() takes for a direction")


def pack(
    models: Sequence[Model],
    output: str | os.PathLike[str],
    *,
    profile: Profile | None = None,
    without: Sequence[str] = (),
    max_variants: int | None = None,
    keep_all: bool = False,
    metrics: Sequence[str] = DEFAULT_METRICS,
    sign: Key | None = None,
) -> Selection:
    """Write the portfolio of `models` to `output`, atomically; the same models give the same bytes.

    A variant is named after its file. Of `models`, portfolios stand for all their variants, with the metadata they
    have; a model replaces the variant of its name, and `without` names variants to leave out. With a `profile` only
    variants that are worth it are kept, chosen by `metrics`, at most `max_variants`, unless `keep_all`; its entries
    become their metadata, beside those the models carry; the first score among `metrics` is the accuracy that policies
    rank by. `sign` is a private Ed25519 key in PEM, or a file of one.
    Returns the selection: what is left out, and why. Raises PackError for duplicate names and for models whose inputs
    or outputs differ, SelectionError as `select`.
    """
    if sign is not None:
        check_signing_key(sign)
    with open_sources(models) as sources:
        sources = _chosen(sources, without)
        names = [source.name for source in sources]
        selection = Selection(tuple(names), {}, (), ())
        measured: Mapping[str, Mapping[str, Any]] = {}
        if profile is not None:
            profile = profile.ranked_by(metrics)
            measured = _measured(profile, sources)
            selection = select(profile, names, max_variants=max_variants, keep_all=keep_all, metrics=metrics)
        elif max_variants is not None and len(names) > max_variants:
            raise PackError(f"{len(names)} models for at most {max_variants} variants: without a profile all are kept")
        kept = [source for source in sources if source.name in selection.kept]
        if not kept:
            raise PackError(f"{output}: a portfolio needs at least one model")
        variants, contents, notes = [], {}, list(selection.notes)
        first: Sides | None = None
        for source in kept:
            model = load_model(source.path)
            given = {tensor.name for tensor in model.graph.initializer}  # an input that one gives is no input
            sides = [value for value in model.graph.input if value.name not in given], list(model.graph.output)
            signature = _signature(sides[0]), _signature(sides[1])
            first = first or signature
            _check_same(kept[0], source, first, signature)
            notes += unify_free_dimensions(model, source.name, first, sides)
            metadata = _joined(source.metadata, measured.get(source.name, {}))
            variant, contents[source.name] = _variant(source.name, model, metadata)
            variants.append(variant)
        assert first is not None  # there is one at least
        with atomic_open(output) as file:
            write_portfolio(file, variants, contents, *first, key=sign)
    return replace(selection, notes=tuple(notes))


def _chosen(sources: Sequence[Source], without: Sequence[str]) -> list[Source]:
    """Return the sources to pack, each name once: a model in place of a portfolio's variant of its name."""
    names = {source.name for source in sources}
    for name in without:
        if name not in names:
            raise PackError(f"{{without}}: there is no variant {name!r}, only {', '.join(sorted(names))}", without=name)
    chosen: dict[str, Source] = {}
    for source in sources:
        check_name(source.path, source.name)
        before = chosen.get(source.name)
        if source.name in without or (before is not None and before.origin is None and source.origin is not None):
            continue
        if before is not None and (before.origin is None or source.origin is not None):
            where = source.origin or source.path
            raise PackError(f"{where}: a second model of the name {source.name!r}; a variant is named after its file")
        chosen[source.name] = source
    return list(chosen.values())


def _measured(profile: Profile, sources: Sequence[Source]) -> Mapping[str, Mapping[str, Any]]:
    """Return the profile's entries by name, each model checked to be the one that was measured, and where it was."""
    missing = [source.name for source in sources if source.name not in profile.variants]
    if missing:
        raise PackError(f"the profile does not list {', '.join(missing)}")
    for source in sources:
        stated = profile.variants[source.name].model_sha256
        if stated is not None and stated != read_model(source.path).sha256:
            where = f"{source.origin}: {source.name}" if source.origin else source.path
            raise PackError(f"{where}: the profile was made of another model of this name; profile again")
    machine = {} if profile.machine is None else {"machine": profile.machine.to_dict()}
    return {source.name: {**profile.variants[source.name].to_dict(), **machine} for source in sources}


def _joined(stated: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a portfolio states and what was measured since; an accuracy that was measured once is kept."""
    if measured.get("accuracy") is not None and not measured.get("accuracy_claimed"):
        stated = {key: value for key, value in stated.items() if key not in _OF_ACCURACY}
    elif stated.get("accuracy") is not None and not stated.get("accuracy_claimed"):
        measured = {key: value for key, value in measured.items() if key not in _OF_ACCURACY}
    return {**stated, **measured}


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


def _check_same(first: Source, other: Source, ours: Sides, theirs: Sides) -> None:
    for kind, one, two in zip(("inputs", "outputs"), ours, theirs, strict=True):
        if [value.comparable for value in one] != [value.comparable for value in two]:
            raise PackError(
                f"{other.path}: its {kind} differ from those of {first.path}: {_text(two)}, not {_text(one)}"
            )


def _text(signatures: Sequence[Signature]) -> str:
    return ", ".join(f"{s.name} {s.type}{s.shape}" for s in signatures)


def _variant(name: str, model: onnx.ModelProto, measured: Mapping[str, Any]) -> tuple[Variant, Content]:
    """Return the variant and its content; takes the large tensors out of `model`."""
    claimed = claimed_accuracy(model)  # its hash is of all weights, which soon lie outside
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
    stated = {key: value for key, value in stated.items() if key not in ("accuracy", "accuracy_weights_sha256")}
    if claimed is not None and measured.get("accuracy") is None:
        stated |= {"accuracy": claimed, "accuracy_claimed": True}
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
