"""Writing files so that an interruption leaves the old file or none, and reading them with one-line errors."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from onnx_shift.errors import OnnxShiftError


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def make_folder(path: Path) -> None:
    """Make the folder `path` where there is none. Raises OnnxShiftError naming it when that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OnnxShiftError(f"{path}: cannot be made ({_reason(error)})") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any exception it is removed.

    The bytes are flushed to the disk before the rename, so a crash never shows a half-written file.
    Raises OnnxShiftError when the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise OnnxShiftError(f"{target}: is a folder, not a file to write")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
    except OSError as error:
        raise OnnxShiftError(f"{target}: cannot be written ({_reason(error)})") from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise OnnxShiftError(f"{target}: cannot be written ({_reason(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes, atomically; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write `content` to `path` atomically; see `atomic_path`."""
    with atomic_open(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` to `path` as UTF-8, atomically; see `atomic_path`."""
    write_bytes(path, content.encode())


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of `path`. Raises OnnxShiftError naming the file when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OnnxShiftError(f"{path}: cannot be read ({_reason(error)})") from error
