"""Writing files so that an interruption leaves the old file or none, and reading them with one-line errors.

Only a plain file is ever replaced. A link is followed; `-` is standard output; FIFOs and character devices, such as
/dev/null and terminals, are written through once all is ready.
"""

import importlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from onnx_shift.errors import OnnxShiftError


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


_STANDARD_OUTPUT = tuple(map(Path, ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")))


def is_standard_output(path: Path | None) -> bool:
    """Whether `path` is one of the names of standard output: what else a command says then goes to stderr."""
    return path in _STANDARD_OUTPUT


def is_stream(path: Path) -> bool:
    """Whether what is written to `path` goes to standard output, a FIFO or a character device.

    Raises OnnxShiftError for other things that are no plain file: a folder, a block device, a socket.
    """
    if is_standard_output(path):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:  # it does not exist
        return False
    if stat.S_ISDIR(mode):
        raise OnnxShiftError(f"{path}: is a folder, not a file to write")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "block device" if stat.S_ISBLK(mode) else "socket"
        raise OnnxShiftError(f"{path}: is a {kind}, not a file to write")
    # The name that /dev/stdout and its like link to is not always the file's own.
    return not stat.S_ISREG(mode) or path.absolute().parts[1:2] in (("dev",), ("proc",))


def plain_target(path: Path) -> Path:
    """Return the file that a link at `path` leads to, else `path`. Raises OnnxShiftError where it is no plain file."""
    if is_stream(path):
        raise OnnxShiftError(f"{path}: is no plain file, and several files are to be written beside each other")
    final = Path(os.path.realpath(path)) if path.is_symlink() else path
    if final.is_symlink():
        raise OnnxShiftError(f"{path}: cannot be written (its links lead to each other)")
    return final


def check_output(target: Path, *others: Path) -> None:
    """Refuse, before any work is done, a file to write that is one of `others`, a folder, or in no folder."""
    if is_stream(target):
        if is_standard_output(target) and any(map(is_standard_output, others)):
            raise OnnxShiftError(f"{target}: two results cannot both go to standard output")
        return
    folder = plain_target(target).parent
    if not folder.is_dir():
        why = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
        raise OnnxShiftError(f"{target}: cannot be written ({why})")
    if not os.access(folder, os.W_OK):
        raise OnnxShiftError(f"{target}: cannot be written (the folder {folder} is read-only)")
    if any(_same_file(target, other) for other in others):
        raise OnnxShiftError(f"{target}: the same command reads or writes this file already; name another")


def check_folder(folder: Path, names: Iterable[str] = (), *others: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be made, or files `names` in it; see `check_output`."""
    if is_standard_output(folder):
        raise OnnxShiftError(f"{folder}: standard output is no folder, and a folder is to be written")
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

    The bytes are flushed to the disk before the rename, so a crash never shows a half-written file. Where `path` is a
    link, the file that it leads to is replaced; what is no plain file gets the bytes once all are there.
    Raises OnnxShiftError when the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    if is_stream(target):
        with _through(target) as temporary:
            yield temporary
        return
    final = plain_target(target)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)  # with the permissions that the user's files get
    except OSError as error:
        raise OnnxShiftError(f"{target}: cannot be written ({_reason(error)})") from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    except OSError as error:
        raise OnnxShiftError(f"{target}: cannot be written ({_reason(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _through(target: Path) -> Iterator[Path]:
    """Yield a temporary path whose bytes then go to `target`, which exists and is no plain file."""
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
        temporary = Path(folder, "written")
        temporary.touch()
        yield temporary
        try:
            with temporary.open("rb") as source, _opened(target) as sink:
                shutil.copyfileobj(source, sink)
        except BrokenPipeError:
            raise  # whoever read has enough
        except OSError as error:
            raise OnnxShiftError(f"{target}: cannot be written ({_reason(error)})") from error


@contextmanager
def _opened(target: Path) -> Iterator[IO[bytes]]:
    if not is_standard_output(target):
        with target.open("ab" if target.is_file() else "wb") as file:  # a file that /dev/fd/3 stands for grows
            yield file
        return
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


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
