"""What a session is built from, deflated: a model without its large tensors, and the files these lie in."""

import math
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from onnx_shift.runtime.archive import Member
from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.inflate import Bytes

MODEL = "model.onnx"
TENSOR_TYPES = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


class Tensor(NamedTuple):
    """One initializer that lies outside the model: where its bytes are and how to read them (type as in
    numpy).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    file: str
    offset: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.type).itemsize


class Content(NamedTuple):
    """What a session is built from, deflated: the model without its large tensors, and the files these lie in.
    Without `prepack` its weights lie as operators want them, and need not be copied once more; with `kernels` it has
    nodes of our own.
    """

    model: Member
    weights: Mapping[str, Member]
    tensors: tuple[Tensor, ...]
    prepack: bool = True
    kernels: bool = False

    @property
    def deflated_bytes(self) -> int:
        return self.model.stored_bytes + sum(member.stored_bytes for member in self.weights.values())

    @property
    def inflated_bytes(self) -> int:
        return self.model.size_bytes + sum(member.size_bytes for member in self.weights.values())

    def inflate(self, threads: int, *, check: bool) -> tuple[bytes, dict[str, np.ndarray[Any, Any]]]:
        """Return the model's bytes and the tensors by name, the files inflated side by side by `threads` threads.

        Raises PortfolioError when a member is damaged (`check` compares CRC-32), MemoryError when there is no room.
        """
        files: dict[str, Bytes] = {}
        errors: list[Exception] = []
        left = deque(sorted(self.weights, key=lambda file: -self.weights[file].stored_bytes))

        def work() -> None:
            try:
                while left:
                    file = left.popleft()
                    files[file] = self.weights[file].content(check=check)
            except IndexError:  # another thread took the last one
                return
            except (PortfolioError, MemoryError) as error:
                errors.append(error)
                left.clear()  # the others need not go on

        others = [threading.Thread(target=work, name="onnx-shift-inflate") for _ in range(min(threads, len(left)) - 1)]
        for other in others:
            other.start()
        work()
        for other in others:
            other.join()
        if errors:
            raise errors[0]
        arrays = {
            tensor.name: files[tensor.file][tensor.offset : tensor.offset + tensor.size_bytes]
            .view(tensor.type)
            .reshape(tensor.shape)
            for tensor in self.tensors
        }
        return self.model.content(check=check).tobytes(), arrays


def tensor_table(content: Content) -> list[dict[str, Any]]:
    """Return the content's tensors as the manifest lists them."""
    return [tensor._asdict() for tensor in content.tensors]


def content_of(entry: Mapping[str, Any], members: Mapping[str, Member], *, prefix: str = "") -> Content:
    """Return the content whose files lie under `prefix`; each tensor that `entry` lists is checked to fit."""
    weights = {
        name.removeprefix(prefix): member
        for name, member in members.items()
        if name.startswith(prefix) and name.endswith(".bin")
    }
    if prefix + MODEL not in members:
        raise PortfolioError(f"{prefix + MODEL}: missing")
    tensors = tuple(_tensor(row, weights) for row in entry["tensors"])
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise PortfolioError(f"{prefix + MODEL}: its tensor table lists a name twice")
    return Content(members[prefix + MODEL], weights, tensors)


def _tensor(row: Mapping[str, Any], weights: Mapping[str, Member]) -> Tensor:
    tensor = Tensor(row["name"], row["type"], tuple(row["shape"]), row["file"], row["offset"])
    whole = all(type(number) is int and number >= 0 for number in (*tensor.shape, tensor.offset))
    if not isinstance(tensor.name, str) or tensor.type not in TENSOR_TYPES or not whole:
        raise PortfolioError(f"tensor {tensor.name!r}: no valid type, shape or offset")
    if tensor.file not in weights or tensor.offset + tensor.size_bytes > weights[tensor.file].size_bytes:
        raise PortfolioError(f"tensor {tensor.name!r}: does not lie inside {tensor.file!r}")
    return tensor
