"""Atomic writing: the old file or none, never a half."""

import sys
from pathlib import Path

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import (
    atomic_open,
    atomic_path,
    check_folder,
    check_output,
    make_folder,
    read_bytes,
    search_working_folder,
    write_bytes,
    write_text,
)


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
    with pytest.raises(OnnxShiftError, match=r"nowhere/a\.bin: cannot be written \(No such file or directory\)"):
        write_bytes(target, b"")


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_reading_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match=r"absent\.onnx: cannot be read \(No such file or directory\)"):
        read_bytes(tmp_path / "absent.onnx")


def test_an_output_that_is_an_input_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    source = tmp_path / "a.onnx"
    source.write_bytes(b"model")
    (tmp_path / "link.onnx").symlink_to(source)
    (tmp_path / "folder").mkdir()
    for target in (source, tmp_path / "link.onnx", tmp_path / "folder" / ".." / "a.onnx"):
        with pytest.raises(OnnxShiftError, match="the same command reads or writes this file already"):
            check_output(target, tmp_path / "other.onnx", source)
    with pytest.raises(OnnxShiftError, match="the same command reads or writes this file already"):
        check_output(tmp_path / "new.json", tmp_path / "folder" / ".." / "new.json")
    assert check_output(tmp_path / "b.onnx", source) is None


def test_an_output_that_cannot_be_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match=f"{tmp_path}: is a folder, not a file to write"):
        check_output(tmp_path)
    with pytest.raises(OnnxShiftError, match=r"none/a\.json: cannot be written \(there is no folder .*none\)"):
        check_output(tmp_path / "none" / "a.json")


def test_a_folder_is_checked_without_being_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_folder(tmp_path / "new" / "deep", ["replay.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(OnnxShiftError, match=rf"{folder}: cannot be made \({tmp_path}/file is no folder\)"):
            make_folder(folder)
    with pytest.raises(OnnxShiftError, match="file: the same command reads or writes this file already"):
        check_folder(tmp_path, ["other", "file"], tmp_path / "file")


def test_modules_of_the_working_folder_are_found_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    monkeypatch.chdir(tmp_path)
    search_working_folder()
    search_working_folder()
    assert sys.path == ["elsewhere", str(tmp_path)]
