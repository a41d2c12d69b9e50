"""Writing files so that an interruption leaves the old file or none, and reading them with one-line errors."""

import importlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from onnx_shift.errors import OnnxShiftError


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def check_output(target: Path, *others: Path) -> None:
    """Refuse, before any work is done, a file to write that is one of `others`, a folder, or in no folder."""
    if target.is_dir():
        raise OnnxShiftError(f"{target}: is a folder, not a file to write")
    if not target.parent.is_dir():
        folder = target.parent
        why = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
        raise OnnxShiftError(f"{target}: cannot be written ({why})")
    if not os.access(target.parent, os.W_OK):
        raise OnnxShiftError(f"{target}: cannot be written (the folder {target.parent} is read-only)")
    if any(_same_file(target, other) for other in others):
        raise OnnxShiftError(f"{target}: the same command reads or writes this file already; name another")


def check_folder(folder: Path, names: Iterable[str] = (), *others: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be made, or files `names` in it; see `check_output`."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise OnnxShiftError(f"{folder}: cannot be made ({existing} is no folder)")
    for name in names if existing == folder else ():
        check_output(folder / name, *others)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return os.path.realpath(one) == os.path.realpath(other)


def make_folder(path: Path) -> None:
    """Make the folder `path` where there is none. Raises OnnxShiftError naming it when that cannot be."""
    check_folder(path)
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
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)  # with the permissions that the user's files get
    except OSError as error:
        raise OnnxShiftError(f"{target}: cannot be written ({_reason(error)})") from error
    try:
        yield temporary
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


def import_named(text: str, option: str) -> Any:
    """Return what package.module:name names, also in the working folder. Raises OnnxShiftError naming `option`."""
    search_working_folder()
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # it is anybody's code
        what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise OnnxShiftError(f"{option} {text}: cannot be imported ({what})") from error


def search_working_folder() -> None:
    """Let modules of the working folder be imported, as under `python -m`; an installed command leaves it out."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
