"""Weights outside the model file, mapped into memory rather than read: what is not looked at takes none."""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

#: Smaller weights are read: shape inference and many a rule look into them.
SMALLEST_MAPPED_BYTES = 1 << 20
_MAPPED_TYPES = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8,
     onnx.TensorProto.UINT8}
)  # fmt: skip


@dataclass(frozen=True)
class Mapped:
    """Arrays over external data, by the name of the initializer, and the files that they lie in."""

    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    files: tuple[mmap.mmap, ...] = ()

    def release(self) -> None:
        """Give the memory of what was looked at back to the system; looking again reads the file again."""
        for file in self.files:
            if hasattr(file, "madvise"):
                file.madvise(mmap.MADV_DONTNEED)

    def fill(self, tensor: onnx.TensorProto) -> None:
        """Bring the values of an external initializer into the tensor itself."""
        if tensor.name in self.arrays:
            tensor.raw_data = self.arrays[tensor.name].tobytes()
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            self.release()


NOTHING_MAPPED = Mapped()


def map_weights(model: onnx.ModelProto, folder: Path) -> Mapped:
    """Map the large initializers of a model that lie in files of `folder`; others are left to be read, or refused."""
    files: dict[str, mmap.mmap] = {}
    arrays: dict[str, NDArray[np.generic]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL or tensor.data_type not in _MAPPED_TYPES:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        file = _mapped(folder, said.get("location", ""), files)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        size_bytes = prod(tensor.dims) * dtype.itemsize
        offset, length = (said.get(key, str(other)) for key, other in (("offset", 0), ("length", size_bytes)))
        if file is None or not (offset.isdigit() and length.isdigit() and int(length) == size_bytes):
            continue
        if size_bytes < SMALLEST_MAPPED_BYTES or int(offset) + size_bytes > len(file) or int(offset) % dtype.itemsize:
            continue
        values = np.frombuffer(file, dtype, prod(tensor.dims), int(offset))
        arrays[tensor.name] = values.reshape(tuple(tensor.dims))
    return Mapped(arrays, tuple(files.values()))


def _mapped(folder: Path, location: str, files: dict[str, mmap.mmap]) -> mmap.mmap | None:
    """Map a file that lies in `folder` itself and is no link out of it; None for any other."""
    if location in files:
        return files[location]
    path = folder / location
    if not location or path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        return None
    try:
        with path.open("rb") as file:
            files[location] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    return files[location]
