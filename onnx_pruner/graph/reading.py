"""Reading a model from its file, the weights that lie outside it included, or left there until somebody needs them."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.checker
import onnx.external_data_helper
from google.protobuf.message import DecodeError

from onnx_shift import files
from onnx_shift.claims import weights_sha256
from onnx_shift.errors import OnnxShiftError, first_line
from onnx_shift.onnx_pruner.graph.external import NOTHING_MAPPED, Mapped, map_weights
from onnx_shift.onnx_pruner.graph.inner import subgraphs


class PruneError(OnnxShiftError):
    """A model that cannot be pruned, or not without changing what it computes."""


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was handed in. `sha256` and `file_bytes` are the file's, external data included;
    None for a model in memory.

    `reserved`: names that new tensors must not have; `looked_at`: weights of bodies that were pruned already, and
    `touched`: whether those changed.
    The initializers of `mapped` are in the model by name alone; their values stay in their file.
    """

    model: onnx.ModelProto
    name: str
    file_bytes: int | None
    sha256: str | None
    external_data: bool = False
    reserved: frozenset[str] = frozenset()
    looked_at: frozenset[str] = frozenset()
    touched: bool = False
    mapped: Mapped = NOTHING_MAPPED

    def complete(self) -> onnx.ModelProto:
        """The model with the values of all its weights."""
        if not self.mapped.arrays:
            return self.model
        found = onnx.ModelProto()
        found.CopyFrom(self.model)
        for tensor in found.graph.initializer:
            self.mapped.fill(tensor)
        return found


def read_model(source: str | os.PathLike[str] | onnx.ModelProto, *, lazily: bool = False) -> LoadedModel:
    """Read a path, or take a ModelProto as it is; `lazily`: large external weights stay in their file.

    Raises PruneError in one line when it is no ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        name = source.graph.name or "model"
        if not source.graph.node and not source.graph.output:
            raise PruneError(f"{name}: the model's graph is empty")
        return LoadedModel(source, name, None, None)
    path = Path(source)
    content, model = parse_model(path)
    mapped = map_weights(model, path.parent) if lazily and not _has_inner_weights(model.graph) else NOTHING_MAPPED
    external = _load_external_data(model, path, mapped.arrays)
    external += sum(array.nbytes for array in mapped.arrays.values())
    digest = hashlib.sha256(content).hexdigest()
    if external and not mapped.arrays:  # mapped ones are not read for this alone
        digest = hashlib.sha256(f"{digest} {weights_sha256(model)}".encode()).hexdigest()
    return LoadedModel(model, str(path), len(content) + external, digest, external > 0, mapped=mapped)


def parse_model(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """Return the bytes of a file and the model that they are, external weights left where they lie.

    Raises PruneError in one line when it is no ONNX model.
    """
    if not path.is_file():
        raise PruneError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    content = files.read_bytes(path)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        if content.startswith(b"PK"):
            raise PruneError(f"{path}: not an ONNX model but a zip archive, perhaps a portfolio") from error
        raise PruneError(f"{path}: not an ONNX model, or a truncated one ({error})") from error
    if not model.graph.node and not model.graph.output:
        raise PruneError(f"{path}: not an ONNX model (its graph is empty)")
    return content, model


def _has_inner_weights(graph: onnx.GraphProto) -> bool:
    """Whether weights may lie elsewhere than among the initializers: in bodies, or as sparse tensors."""
    return bool(graph.sparse_initializer) or any(True for node in graph.node for _ in subgraphs(node))


def _load_external_data(model: onnx.ModelProto, path: Path, mapped: Collection[str]) -> int:
    """Bring external data into the model, except for `mapped`; returns their bytes."""
    size = 0
    sparse = (part for tensor in model.graph.sparse_initializer for part in (tensor.values, tensor.indices))
    for tensor in (*onnx.external_data_helper._get_all_tensors(model), *sparse):
        if onnx.external_data_helper.uses_external_data(tensor) and tensor.name not in mapped:
            try:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            except (OSError, ValueError, onnx.checker.ValidationError) as error:
                raise PruneError(
                    f"{path}: external data of {tensor.name!r} cannot be read: {first_line(error)}"
                ) from error
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            size += len(tensor.raw_data)
    return size
