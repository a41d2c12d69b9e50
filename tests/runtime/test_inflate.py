"""Every inflater gives the same bytes, or one error."""

import numpy as np
import pytest

from onnx_shift.runtime import inflate as inflating
from onnx_shift.runtime.archive import DEFLATED, Member
from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.inflate import InflateError, anonymous_buffer, deflate, inflate
from tests.runtime.archives import NOISE


@pytest.mark.parametrize("size", [99, 101])
def test_a_declared_size_that_lies_is_refused(size: int) -> None:
    stream = np.frombuffer(deflate(np.arange(100, dtype=np.uint8)), np.uint8)
    with pytest.raises(PortfolioError, match=rf"liar: damaged \(no DEFLATE stream of {size} bytes"):
        Member("liar", DEFLATED, 0, size, stream).content()


@pytest.mark.parametrize("inflater", ["_inflate_package", "_inflate_zlib"])
@pytest.mark.parametrize("content", [b"", b"a", bytes(100_000), NOISE])
def test_every_inflater_gives_the_same(inflater: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = np.frombuffer(content, np.uint8)
    stream = deflate(raw)
    assert inflate(stream, raw.size).tobytes() == content
    monkeypatch.setattr(inflating, "_inflater", lambda: getattr(inflating, inflater))
    assert inflate(stream, raw.size).tobytes() == content
    for wrong_size in (raw.size + 1, max(raw.size - 1, 1)) if raw.size > 1 else (raw.size + 1,):
        with pytest.raises(InflateError):
            inflate(stream, wrong_size)
    with pytest.raises(InflateError):
        inflate(b"\xff" * 20, 100)


def test_zlib_takes_over_where_libdeflate_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflating, "_deflate_package", lambda: None)
    inflating._inflater.cache_clear()
    try:
        assert inflating._inflater() is inflating._inflate_zlib
        stream = deflate(np.frombuffer(NOISE * 3, np.uint8))
        assert inflate(stream, 3 * len(NOISE)).tobytes() == NOISE * 3
    finally:
        inflating._inflater.cache_clear()


def test_no_memory_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(inflating.mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match="no memory for 5000 bytes"):
        anonymous_buffer(5000)


def test_a_buffer_of_several_pieces_is_zero_and_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for refused in (False, True):  # as Linux before 5.14 does
        if refused:
            monkeypatch.setattr(inflating, "_madvise", lambda: lambda *_: -1)
        content = anonymous_buffer((5 << 19) + 3)
        assert content.size == (5 << 19) + 3 and not content.any()
        content[:] = 7
        assert int(content.sum(dtype=np.int64)) == 7 * content.size
