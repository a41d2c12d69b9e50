"""The zip in one canonical form."""

import io
import zipfile

import numpy as np
import pytest

from onnx_shift.runtime.archive import DEFLATED, STORED, Member, new_member, read_archive, write_archive
from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.inflate import deflate
from tests.runtime.archives import NOISE


def archive(**contents: bytes) -> bytes:
    file = io.BytesIO()
    write_archive(file, [new_member(name, content) for name, content in contents.items()])
    return file.getvalue()


def test_a_plain_zip_tool_reads_what_is_written() -> None:
    raw = archive(zeros=bytes(9000), noise=NOISE, empty=b"")
    with zipfile.ZipFile(io.BytesIO(raw)) as plain:
        assert plain.testzip() is None
        assert [entry.filename for entry in plain.infolist()] == ["zeros", "noise", "empty"]
        assert [entry.compress_type for entry in plain.infolist()] == [DEFLATED, STORED, STORED]
        assert plain.read("noise") == NOISE and plain.read("zeros") == bytes(9000)


def test_what_is_stored_is_not_copied() -> None:
    raw = archive(noise=NOISE)
    content = read_archive(raw)["noise"].content()
    assert content.tobytes() == NOISE
    assert np.shares_memory(content, np.frombuffer(raw, np.uint8))


@pytest.mark.parametrize("saved, method", [(0.101, DEFLATED), (0.099, STORED)])
def test_deflated_only_where_it_saves_a_tenth(saved: float, method: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 10_000
    monkeypatch.setattr("onnx_shift.runtime.archive.deflate", lambda raw: bytes(round(size * (1 - saved))))
    assert new_member("x", bytes(size)).method == method


def test_no_name_twice() -> None:
    member = new_member("same", b"x")
    with pytest.raises(PortfolioError, match="same: twice in one archive"):
        write_archive(io.BytesIO(), [member, member])


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/x", "a//b", "C:x", "a\\b", "a\0", ".", "a/"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(PortfolioError, match="no name for a file inside an archive"):
        read_archive(archive(**{name: b"content"}))


def test_every_flipped_bit_outside_the_content_is_noticed() -> None:
    raw = archive(first=bytes(50), second=NOISE[:30])
    content = {index for index in range(len(raw)) if raw[index : index + 30] == NOISE[:30]}
    start = content.pop()
    stream = raw.index(b"first") + 5
    payload = {*range(start, start + 30), *range(stream, stream + len(deflate(np.zeros(50, np.uint8))))}
    for index in set(range(len(raw))) - payload:
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[index] ^= 1 << bit
            with pytest.raises(PortfolioError):
                for member in read_archive(bytes(damaged)).values():
                    member.content()


@pytest.mark.parametrize("name", ["a:b/x", "a\\b", "../x", "a\nb", "/x", "", "a\udcff"])
def test_a_name_that_cannot_be_read_is_not_written(name: str) -> None:
    with pytest.raises(PortfolioError, match="no name for a file inside an archive"):
        write_archive(io.BytesIO(), [new_member(name, b"x")])


@pytest.mark.parametrize("kept", [0, 1, 10, 21, 22, 50, -1, -22, -100])
def test_cut_files_are_refused(kept: int) -> None:
    raw = archive(first=bytes(50), second=NOISE)
    with pytest.raises(PortfolioError, match=r"too short|end record|directory"):
        read_archive(raw[:kept])


def test_a_declared_size_beyond_what_deflate_can_hold_is_refused() -> None:
    bomb = Member("bomb", DEFLATED, 0, 1 << 31, np.zeros(100, np.uint8))
    file = io.BytesIO()
    write_archive(file, [bomb])
    with pytest.raises(PortfolioError, match="bomb: declares 2147483648 bytes, more than 100 stored can hold"):
        read_archive(file.getvalue())


def test_a_wrong_crc_is_refused() -> None:
    member = new_member("weights", bytes(1000))
    damaged = Member("weights", member.method, member.crc32 ^ 1, member.size_bytes, member.stored)
    with pytest.raises(PortfolioError, match=r"weights: damaged \(its CRC-32 differs"):
        damaged.content()
    assert damaged.content(check=False).size == 1000
