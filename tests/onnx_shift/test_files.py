"""Atomic writing: the old file or none, never a half."""

from pathlib import Path

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import atomic_open, atomic_path, read_bytes, write_bytes, write_text


def test_write_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    write_text(target, "new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_open(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_missing_folder_is_named(tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "a.bin"
    with pytest.raises(
        OnnxShiftError, match=r"nowhere/a\.bin: cannot be written \(No such file or directory\)"
    ):
        write_bytes(target, b"")


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_reading_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match=r"absent\.onnx: cannot be read \(No such file or directory\)"):
        read_bytes(tmp_path / "absent.onnx")
