"""Checkpoints: written whole or not at all, refused when damaged."""

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onnx_shift.errors import OnnxShiftError, first_line
from onnx_shift.files import read_bytes, write_bytes

FORMAT = 1


class CheckpointError(OnnxShiftError):
    """A checkpoint that is damaged, not ours, or of another recipe."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings and containers of them) to `path`, atomically."""
    buffer = io.BytesIO()  # torch reports a full disk as an internal error; plain bytes as what it is
    torch.save({"format": FORMAT, **content}, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read what `save_checkpoint`, or any `torch.save` of plain containers, wrote. No code of the file is
    run.

    Raises CheckpointError naming the file when it is damaged, holds anything but tensors and plain values, or lacks
    one of `keys`.
    """
    content = read_bytes(path)
    damaged = f"{path}: not a usable checkpoint"
    if content[:2] == b"PK":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                broken = archive.testzip()  # torch checks no checksums when it reads
        except Exception as error:  # damage shows as almost anything
            raise CheckpointError(f"{damaged} ({error})") from error
        if broken is not None:
            raise CheckpointError(f"{damaged} (checksum of {broken} is wrong)")
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to let the file run code
        raise CheckpointError(f"{damaged} (no PyTorch file, or it holds more than tensors and plain values)") from error
    except Exception as error:  # here, too
        raise CheckpointError(f"{damaged} ({first_line(error, kind=True)})") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{damaged} (holds a {type(loaded).__name__})")
    missing = [key for key in keys if key not in loaded]
    if missing:
        raise CheckpointError(f"{damaged} (holds no {missing[0]})")
    return loaded
