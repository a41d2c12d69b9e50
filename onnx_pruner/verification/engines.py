"""Infer an ONNX model in a named runtime: onnxruntime, the ONNX reference evaluator or one of `ENGINES`."""

import ctypes
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto

from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner.engines.engine import ENGINES, CannotRunError, MissingEngineError, open_model, said
from onnx_shift.onnx_pruner.graph.network import copy_fields
from onnx_shift.onnx_pruner.graph.reading import PruneError, parse_model

Model = str | os.PathLike[str] | onnx.ModelProto
Array = np.ndarray[Any, Any]
Value = Array | list[Array] | None  # a tensor, a sequence of tensors, or an optional one that is absent
Feeds = dict[str, Value]
Outputs = list[list[Array]]  # per output its tensors: one, but for sequences and maps

#: Tensors above this size reach onnxruntime by reference instead of inside the serialised model.
_BY_REFERENCE_BYTES = 1 << 20
_VALUES = (TypeError, ValueError)


class VerificationError(OnnxShiftError):
    """The models cannot be compared: no runtime, no input that runs, or not a model at all."""


Infer = Callable[[Feeds], Outputs]  # a model opened in a runtime: named inputs to outputs. Raises CannotRunError.


class Open(Protocol):
    """Open a model in a runtime; `folder` takes temporary files. Raises CannotRunError."""

    def __call__(self, source: "Source", folder: str, /, *, optimise: bool = False) -> Infer: ...


@dataclass(frozen=True)
class Source:
    """A model to run: its name in errors, its graph, and its file if any.

    `weights`: the folder that external weights lie in. `watched`: tensors to put out besides. `fresh`: open it anew for
    every run, since its seeded random operators go on from run to run. `register`: called with onnxruntime's session
    options, to make operators known that the model needs.
    """

    label: str
    model: onnx.ModelProto
    path: Path | None
    weights: Path | None = None
    watched: tuple[str, ...] = ()
    fresh: bool = False
    register: Callable[[Any], None] | None = None

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    def changed(self, model: onnx.ModelProto, *, fresh: bool = False) -> "Source":
        """Return the source of an edited copy of this model; external weights stay where they are."""
        return replace(self, model=model, path=None, fresh=self.fresh or fresh)


def opened(runtime: str, source: Source, folder: str, *, optimise: bool = False) -> Infer:
    """Open a model in a runtime. Raises CannotRunError."""
    run = RUNTIMES[runtime](source, folder, optimise=optimise)
    if not source.fresh:
        return run
    return lambda feeds: RUNTIMES[runtime](source, folder, optimise=optimise)(feeds)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy to edit."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    return found


def read(model: "Model | Source", label: str) -> Source:
    """Return `model`, read if it is a path, or as it is. Raises VerificationError when the file is no ONNX model."""
    if isinstance(model, Source):
        return model
    if isinstance(model, onnx.ModelProto):
        return Source(label, model, None)
    path = Path(model)
    try:
        _, proto = parse_model(path)
    except PruneError as error:
        raise VerificationError(str(error)) from error
    return Source(str(path), proto, path, path.parent)


def _onnxruntime(source: Source, folder: str, /, *, optimise: bool = False) -> Infer:
    import onnxruntime

    from onnx_shift.ort import CPU, RUN_ERRORS

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    arrays: dict[str, Array] = {}
    if source.register is not None:
        source.register(options)
    try:
        content: str | bytes = str(source.path)
        if source.path is None or source.watched:
            skeleton, arrays = _split_weights(source.model)
            skeleton.graph.output.extend(onnx.ValueInfoProto(name=name) for name in source.watched)
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
            options.add_external_initializers(list(arrays), values)
            if source.weights is not None:
                options.add_session_config_entry(_WEIGHTS_FOLDER, str(source.weights))
            content = skeleton.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=[CPU])
    except RUN_ERRORS as error:
        raise CannotRunError(said(error)) from error
    unknown = [one.name for one in (*session.get_inputs(), *session.get_outputs()) if one.type in _BEYOND_NUMPY]

    def run(feeds: Feeds, /) -> Outputs:
        assert session is not None and arrays is not None  # the session reads the arrays as long as it lives
        try:
            if not unknown:
                return [_flat(value) for value in session.run(None, feeds)]
            given = {name: _ort_value(value) for name, value in feeds.items() if value is not None}
            return [[_numpy(value)] for value in session.run_with_ort_values(None, given)]
        except RUN_ERRORS as error:
            raise CannotRunError(said(error)) from error

    return run


#: Where onnxruntime looks for the external weights of a model that it is given as bytes.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
#: onnxruntime's names of types that numpy lacks, as far as onnx knows them; their bytes go in and out as they are.
_BEYOND_NUMPY: Mapping[str, int] = {
    f"tensor({name.lower()})": kind
    for name, kind in TensorProto.DataType.items()
    if name == "BFLOAT16" or name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2"))
}


def _ort_value(value: Value) -> Any:
    import onnxruntime

    if not isinstance(value, np.ndarray) or value.dtype.isbuiltin == 1:
        return onnxruntime.OrtValue.ortvalue_from_numpy(value)
    tensor = onnx.numpy_helper.from_array(value)  # packs what takes less than a byte
    filled = np.zeros(value.size, np.uint16 if value.itemsize == 2 else np.uint8)
    content = np.frombuffer(tensor.raw_data, filled.dtype)
    filled[: content.size] = content
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(filled.reshape(value.shape), tensor.data_type)


def _numpy(value: Any) -> Array:
    kind = _BEYOND_NUMPY.get(value.data_type())
    if kind is None:
        return np.asarray(value.numpy())
    empty = np.zeros(value.shape(), onnx.helper.tensor_dtype_to_np_dtype(kind))
    size_bytes = len(onnx.numpy_helper.from_array(empty).raw_data)
    content = ctypes.string_at(value.data_ptr(), size_bytes)
    return onnx.numpy_helper.to_array(TensorProto(data_type=kind, dims=value.shape(), raw_data=content))


def _split_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return the model with its large weights marked external, and those arrays by name.

    A model in memory may exceed the 2 GB of one protobuf message, and serialising weights costs more than
    running a small network.
    """
    skeleton, arrays = onnx.ModelProto(), {}
    copy_fields(model, skeleton, without="graph")
    copy_fields(model.graph, skeleton.graph, without="initializer")
    for tensor in model.graph.initializer:
        size_bytes = math.prod(tensor.dims) * 4
        plain = tensor.data_type == TensorProto.FLOAT and tensor.HasField("raw_data")
        if not plain or size_bytes < _BY_REFERENCE_BYTES:
            skeleton.graph.initializer.append(tensor)
            continue
        arrays[tensor.name] = onnx.numpy_helper.to_array(tensor)
        outside = skeleton.graph.initializer.add(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            data_location=TensorProto.EXTERNAL,
        )
        outside.external_data.add(key="location", value="in-memory")
        outside.external_data.add(key="length", value=str(size_bytes))
    return skeleton, arrays


def _reference(source: Source, folder: str, /, *, optimise: bool = False) -> Infer:
    from onnx.reference import ReferenceEvaluator

    refusals = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, *_VALUES)
    try:
        evaluator = ReferenceEvaluator(complete(source))
    except refusals as error:
        raise CannotRunError(said(error)) from error

    def run(feeds: Feeds, /) -> Outputs:
        try:
            with np.errstate(all="ignore"):
                return [_flat(value) for value in evaluator.run(None, feeds)]
        except refusals as error:
            raise CannotRunError(said(error)) from error

    return run


def _elsewhere(engine: str, source: Source, folder: str, /, *, optimise: bool = False) -> Infer:
    own = Path(tempfile.mkdtemp(dir=folder))
    path = source.path
    if path is None:
        path = own / "given.onnx"
        try:
            onnx.save(complete(source), path)
        except ValueError as error:  # beyond the 2 GB of one message
            raise CannotRunError(said(error)) from error
    try:
        run = open_model(engine, path, own)
    except MissingEngineError as error:
        raise VerificationError(str(error)) from error

    def infer(feeds: Feeds, /) -> Outputs:
        arrays = {name: value for name, value in feeds.items() if isinstance(value, np.ndarray)}
        if len(arrays) < len(feeds):
            raise CannotRunError("an input is no tensor")
        return [[value] for value in run(arrays)]

    return infer


#: How to open a model, by the runtime's name.
RUNTIMES: Mapping[str, Open] = {
    "onnxruntime": _onnxruntime,
    "reference": _reference,
    **{engine: partial(_elsewhere, engine) for engine in ENGINES},
}


def complete(source: Source) -> onnx.ModelProto:
    """Return the model with its external weights in it."""
    if source.weights is None:
        return source.model
    model = copied(source.model)
    onnx.load_external_data_for_model(model, str(source.weights))
    return model


def _flat(value: Any) -> list[Array]:
    """Return one output as tensors; sequences and maps are laid out one after the other."""
    if isinstance(value, (list, tuple)):
        return [array for item in value for array in _flat(item)]
    if isinstance(value, dict):
        return [np.array([value[key] for key in sorted(value)])]
    return [] if value is None else [np.asarray(value)]
