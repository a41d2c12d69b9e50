"""What a model takes and gives, in the protocol's words: datatypes and shapes of its inputs and outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime.portfolio import Signature

BYTES = "BYTES"
_DATATYPES = {
    "tensor(bool)": ("BOOL", "?"),
    "tensor(float16)": ("FP16", "<f2"),
    "tensor(float)": ("FP32", "<f4"),
    "tensor(double)": ("FP64", "<f8"),
    "tensor(string)": (BYTES, "O"),
    **{f"tensor(int{bits})": (f"INT{bits}", f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": (f"UINT{bits}", f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class TensorType:
    """One input or output: its datatype by the protocol's name and numpy's, and its shape, -1 where it is free."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def described(self) -> dict[str, Any]:
        """Return it as the protocol's model metadata state it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, eq=False)
class Contract:
    """The inputs and outputs of a model, by name, in its order. One is equal to itself alone, so that it has a hash."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]

    @property
    def batches(self) -> bool:
        """Whether the first dimension of every input and output is free, so that requests can share one run."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        return all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)


def contract_of(inputs: Sequence[Signature], outputs: Sequence[Signature]) -> Contract:
    """Return the contract of a model with these signatures. Raises OnnxShiftError where the protocol has no type."""
    return Contract(*({value.name: _tensor_type(value) for value in values} for values in (inputs, outputs)))


def _tensor_type(signature: Signature) -> TensorType:
    if signature.type not in _DATATYPES:
        raise OnnxShiftError(f"{signature.name}: is a {signature.type}, which the Open Inference Protocol cannot carry")
    datatype, dtype = _DATATYPES[signature.type]
    shape = tuple(size if isinstance(size, int) else -1 for size in signature.shape)
    return TensorType(signature.name, datatype, np.dtype(dtype), shape)
