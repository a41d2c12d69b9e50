"""Inflating DEFLATE streams straight into anonymous memory maps.

libdeflate does it 2-3 times faster than zlib. It is called through the shared library that the package
`deflate` brings, because the package itself only returns fresh heap objects: large ones come and go with
every switch, and glibc's heap then swings by a model's size. A map returns to the system when its last
array dies.
"""

import ctypes
import mmap
import sys
import zlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias, cast

import numpy as np

Buffer = bytes | bytearray | memoryview | mmap.mmap
Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
_Inflate = Callable[[Bytes, Bytes], bool]
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux
_PIECE_BYTES = 1 << 20


class InflateError(ValueError):
    """The stream is no DEFLATE stream of exactly the declared size."""


def anonymous_buffer(size_bytes: int) -> Bytes:
    """Return `size_bytes` zero bytes in a private anonymous map of their own, freed with the last view.

    Raises MemoryError when the system has none left.
    """
    if not size_bytes:
        return np.empty(0, np.uint8)
    try:
        if hasattr(mmap, "MAP_PRIVATE"):
            pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            pages = mmap.mmap(-1, size_bytes)
    except OSError as error:
        raise MemoryError(f"no memory for {size_bytes} bytes") from error
    content = np.frombuffer(pages, np.uint8)
    if sys.platform == "linux":
        _bring_in(content)
    return content


def _bring_in(content: Bytes) -> None:
    """Have the system bring in the pages of a map: cheaper, up to a quarter of inflating, than on each first write.

    A piece at a time, so that no other thread's map waits for long. Huge pages would be cheaper still, but where memory
    is in pieces the system moves it together for them, and all threads wait for a tenth of a second.
    """
    madvise = _madvise()
    for begin in range(0, content.size, _PIECE_BYTES):
        size = min(_PIECE_BYTES, content.size - begin)
        if madvise(content.ctypes.data + begin, size, _POPULATE_WRITE):
            return  # before Linux 5.14, or no room: the first write will tell


@cache
def _madvise() -> Callable[[int, int, int], int]:
    madvise: Any = ctypes.CDLL(None).madvise  # mmap's own keeps the interpreter lock
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return cast(Callable[[int, int, int], int], madvise)


def inflate(stream: Buffer | Bytes, size_bytes: int) -> Bytes:
    """Return the `size_bytes` bytes that the raw DEFLATE `stream` holds, in an anonymous map.

    The interpreter lock is released meanwhile. Raises InflateError when the stream is broken or holds another
    number of bytes, MemoryError when there is no room.
    """
    content = anonymous_buffer(size_bytes)
    if not _inflater()(np.frombuffer(stream, np.uint8), content):
        raise InflateError(f"no DEFLATE stream of {size_bytes} bytes")
    return content


def deflate(content: Bytes) -> bytes:
    """Return `content` as a raw DEFLATE stream; the same library version gives the same bytes."""
    package = _deflate_package()
    if package is not None:
        return bytes(package.deflate_compress(content.data, 6))
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return compressor.compress(content.data) + compressor.flush()


def _deflate_package() -> ModuleType | None:
    try:
        import deflate
    except ImportError:
        return None
    return deflate if hasattr(deflate, "deflate_compress") else None


@cache
def _inflater() -> _Inflate:
    package = _deflate_package()
    if package is None:
        return _inflate_zlib
    try:
        library: Any = ctypes.CDLL(package._deflate.__file__)
        open_, close = library.libdeflate_alloc_decompressor, library.libdeflate_free_decompressor
        decompress = library.libdeflate_deflate_decompress
    except (AttributeError, OSError):  # a build that hides the library's own symbols
        return _inflate_package
    open_.restype = ctypes.c_void_p
    close.argtypes, close.restype = [ctypes.c_void_p], None
    address, size = ctypes.c_void_p, ctypes.c_size_t
    decompress.argtypes = [address, address, size, address, size, address]

    def inflate_libdeflate(stream: Bytes, content: Bytes) -> bool:
        state = open_()
        if not state:
            raise MemoryError("no memory for a decompressor")
        try:
            source, target = stream.ctypes.data, content.ctypes.data
            return bool(decompress(state, source, stream.size, target, content.size, None) == 0)
        finally:
            close(state)

    return inflate_libdeflate


def _inflate_package(stream: Bytes, content: Bytes) -> bool:
    import deflate

    try:
        inflated = deflate.deflate_decompress(stream.data, content.size)
    except deflate.DeflateError:
        return False
    if len(inflated) != content.size:
        return False
    content[:] = np.frombuffer(inflated, np.uint8)
    return True


def _inflate_zlib(stream: Bytes, content: Bytes) -> bool:
    # One call with the output size known: in steps, zlib takes the interpreter lock back for each.
    state = zlib.decompressobj(-15)
    try:
        inflated = state.decompress(stream.data, max(content.size, 1))
    except zlib.error:
        return False
    if len(inflated) != content.size or not state.eof:
        return False
    content[:] = np.frombuffer(inflated, np.uint8)
    return True
