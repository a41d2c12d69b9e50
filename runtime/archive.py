"""The container: a plain zip in one canonical form, so that any damage shows.

Members lie back to back in the order of the directory, with one fixed date, no comment and no extra field.
Reading rebuilds each header from what the directory says and compares the bytes: whatever is not exactly what
`write_archive` would write is refused. Any zip tool can unpack it.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.inflate import Buffer, Bytes, InflateError, anonymous_buffer, deflate, inflate

STORED, DEFLATED = 0, 8
_VERSION, _UTF8_NAMES, _DATE = 20, 0x0800, 0x0021  # zip 2.0; UTF-8; 1 January 1980
_UNIX_FILE = 0o100644 << 16
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LIMIT = 0xFFFFFFFF  # beyond it a zip needs the 64-bit form, which nothing that fits an edge device does
_MAX_DIRECTORY_BYTES = 16 << 20
_MAX_RATIO = 1032  # what DEFLATE can reach at most (zlib.net/zlib_tech.html)


def sha256(content: Buffer) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    import hashlib  # brings OpenSSL, a tenth of what importing the runtime may cost

    return hashlib.sha256(content).hexdigest()


class Member(NamedTuple):
    """One file of an archive as it lies there: `stored` holds its DEFLATE stream, or the content itself."""

    name: str
    method: int
    crc32: int
    size_bytes: int
    stored: Bytes

    @property
    def stored_bytes(self) -> int:
        return self.stored.size

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes as stored, in hexadecimal."""
        return sha256(self.stored.data)

    def content(self, *, check: bool = True) -> Bytes:
        """Return the content, a view of `stored` where nothing is deflated; `check` compares its CRC-32.

        Raises PortfolioError naming the member when it is damaged, MemoryError when there is no room.
        """
        if self.method == STORED:
            content = self.stored
        else:
            try:
                content = inflate(self.stored, self.size_bytes)
            except InflateError as error:
                raise PortfolioError(f"{self.name}: damaged ({error})") from error
        if check and zlib.crc32(content.data) != self.crc32:
            raise PortfolioError(f"{self.name}: damaged (its CRC-32 differs)")
        return content


def new_member(name: str, content: Buffer | Bytes) -> Member:
    """Return `content` as a member: deflated, or stored where DEFLATE saves less than a tenth."""
    raw = np.frombuffer(content, np.uint8)
    deflated = np.frombuffer(deflate(raw), np.uint8)
    saves = deflated.size <= 0.9 * raw.size
    return Member(name, DEFLATED if saves else STORED, zlib.crc32(raw.data), raw.size, deflated if saves else raw)


def write_archive(file: IO[bytes], members: Iterable[Member]) -> None:
    """Write `members` in their order. Raises PortfolioError for a repeated or unreadable name or more than 4 GiB."""
    directory, names, offset = io.BytesIO(), set(), 0
    for member in members:
        _check_name(member.name)
        if member.name in names:
            raise PortfolioError(f"{member.name}: twice in one archive")
        names.add(member.name)
        header = _local_header(member)
        directory.write(_entry(member, offset))
        offset += len(header) + member.stored_bytes
        if max(offset, member.size_bytes) > _LIMIT or len(names) > 0xFFFE:
            raise PortfolioError(f"{member.name}: an archive holds at most 4 GiB and 65534 files")
        file.write(header)
        file.write(member.stored.data)
    entries = directory.getvalue()
    file.write(entries + _end(len(names), len(entries), offset))


def read_archive(source: str | os.PathLike[str] | Buffer) -> dict[str, Member]:
    """Return the members of `source` by name: copied from a path, pointing into the bytes or the map
    otherwise.

    Checks structure and names, not the members' content. Raises PortfolioError saying what is wrong.
    """
    if isinstance(source, str | os.PathLike):
        try:
            with Path(source).open("rb") as file:
                return _read(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise PortfolioError(f"{source}: cannot be read ({error.strerror or error})") from error
    raw = np.frombuffer(source, np.uint8)
    return _read(_Memory(raw), raw.size)


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether the file begins like a zip. Raises PortfolioError when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError as error:
        raise PortfolioError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Memory:
    """The part of a file's interface that reading needs, over a buffer that is never copied."""

    def __init__(self, raw: Bytes) -> None:
        self._raw, self._at = raw, 0

    def seek(self, offset: int) -> None:
        self._at = offset

    def read(self, size: int) -> bytes:
        return self.take(size).tobytes()

    def take(self, size: int) -> Bytes:
        self._at += size
        return self._raw[self._at - size : self._at]


def _read(file: IO[bytes] | _Memory, total_bytes: int) -> dict[str, Member]:
    if total_bytes < _END.size:
        raise PortfolioError("no archive: too short")
    file.seek(total_bytes - _END.size)
    end = file.read(_END.size)
    _, _, _, _, count, directory_bytes, directory_offset, _ = _END.unpack(end)
    if end != _end(count, directory_bytes, directory_offset):
        file.seek(0)
        if file.read(2) != b"PK":
            raise PortfolioError("no portfolio: it is no zip archive, which onnx-shift pack makes of ONNX models")
        raise PortfolioError("no archive, or cut short: its end record is missing")
    if directory_offset + directory_bytes + _END.size != total_bytes or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise PortfolioError("its directory does not lie where the end record says")
    file.seek(directory_offset)
    directory = file.read(directory_bytes)
    members: dict[str, Member] = {}
    at = offset = 0
    for _ in range(count):
        member, entry_bytes, member_offset = _parse_entry(directory, at)
        at += entry_bytes
        header = _local_header(member)
        end_offset = offset + len(header) + member.stored_bytes
        if member.name in members:
            raise PortfolioError(f"{member.name}: twice in the archive")
        if member_offset != offset or end_offset > directory_offset:
            raise PortfolioError(f"{member.name}: does not lie where the directory says")
        file.seek(offset)
        if file.read(len(header)) != header:
            raise PortfolioError(f"{member.name}: its header differs from the directory's entry")
        members[member.name] = _with_stored(member, file)
        offset = end_offset
    if at != directory_bytes or offset != directory_offset:
        raise PortfolioError("its directory does not list all of its content")
    return members


def _parse_entry(directory: bytes, at: int) -> tuple[Member, int, int]:
    """Return the member listed at `at` (its `stored` not filled yet), the entry's length and the member's
    offset.
    """
    if at + _ENTRY.size > len(directory):
        raise PortfolioError("its directory is cut short")
    fields = _ENTRY.unpack_from(directory, at)
    method, crc32, stored_bytes, size_bytes, name_bytes, offset = *fields[4:5], *fields[7:11], fields[16]
    raw_name = directory[at + _ENTRY.size : at + _ENTRY.size + name_bytes]
    try:
        name = raw_name.decode()
    except UnicodeDecodeError as error:
        raise PortfolioError("a name in its directory is no UTF-8") from error
    _check_name(name)
    if method not in (STORED, DEFLATED):
        raise PortfolioError(f"{name}: compression method {method} is neither stored (0) nor deflated (8)")
    if size_bytes > stored_bytes * (_MAX_RATIO if method == DEFLATED else 1):
        raise PortfolioError(f"{name}: declares {size_bytes} bytes, more than {stored_bytes} stored can hold")
    if method == STORED and size_bytes != stored_bytes:
        raise PortfolioError(f"{name}: declares {size_bytes} bytes and stores {stored_bytes}")
    member = Member(name, method, crc32, size_bytes, _unfilled(stored_bytes))
    entry = _entry(member, offset)
    if directory[at : at + len(entry)] != entry:
        raise PortfolioError(f"{name}: its directory entry has fields that no portfolio has")
    return member, len(entry), offset


def _unfilled(size_bytes: int) -> Bytes:
    # A size without memory behind it: declared sizes are checked against the file before anything is
    # allocated.
    return np.broadcast_to(np.uint8(0), size_bytes)


def _with_stored(member: Member, file: IO[bytes] | _Memory) -> Member:
    if isinstance(file, _Memory):
        stored = file.take(member.stored_bytes)
    else:
        stored = anonymous_buffer(member.stored_bytes)
        if file.readinto(stored.data) != stored.size:  # type: ignore[attr-defined]
            raise PortfolioError(f"{member.name}: the file became shorter while it was read")
    return member._replace(stored=stored)


def _check_name(name: str) -> None:
    parts = name.split("/")
    forbidden = any(c in "\\:\0" or ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)
    if forbidden or any(part in ("", ".", "..") for part in parts):
        raise PortfolioError(f"{name!r}: no name for a file inside an archive")


def _local_header(member: Member) -> bytes:
    name = member.name.encode()
    return _LOCAL.pack(b"PK\3\4", *_common(member, name)) + name


def _entry(member: Member, offset: int) -> bytes:
    name = member.name.encode()
    made_by = 3 << 8 | _VERSION  # 3: Unix, whose file mode the external attributes hold
    return _ENTRY.pack(b"PK\1\2", made_by, *_common(member, name), 0, 0, 0, _UNIX_FILE, offset) + name


def _common(member: Member, name: bytes) -> Sequence[int]:
    sizes = (member.crc32, member.stored_bytes, member.size_bytes)
    return _VERSION, _UTF8_NAMES, member.method, 0, _DATE, *sizes, len(name), 0


def _end(count: int, directory_bytes: int, directory_offset: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, directory_bytes, directory_offset, 0)
