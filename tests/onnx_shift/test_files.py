"""Atomic writing: the old file or none, never a half."""

import os
import stat
import subprocess
import sys
import threading
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


def test_a_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.bin").write_bytes(b"old")
    link, chain, dangling = (tmp_path / name for name in ("link", "chain", "dangling"))
    link.symlink_to("far/a.bin")
    chain.symlink_to(link)
    dangling.symlink_to("far/new.bin")
    for target in (link, chain, dangling):
        check_output(target)
        write_bytes(target, target.name.encode())
        assert target.is_symlink()
    assert (tmp_path / "far" / "a.bin").read_bytes() == b"chain"
    assert (tmp_path / "far" / "new.bin").read_bytes() == b"dangling"
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["a.bin", "new.bin"]


def test_links_that_lead_nowhere_or_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "nowhere").symlink_to("none/a.bin")
    for act in (check_output, lambda path: write_bytes(path, b"x")):
        with pytest.raises(OnnxShiftError, match=r"one: cannot be written \(its links lead to each other\)"):
            act(tmp_path / "one")
        with pytest.raises(OnnxShiftError, match=r"nowhere: cannot be written"):
            act(tmp_path / "nowhere")
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "nowhere"))


def test_a_fifo_is_written_through_and_stays_one(tmp_path: Path) -> None:
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    check_output(fifo)
    write_bytes(fifo, bytes(200_000))
    reader.join(30)
    assert read == [bytes(200_000)] and stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_failure_writes_nothing_through(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_open("/dev/full") as file:
        file.write(b"half")  # a byte of it would fail
        raise KeyboardInterrupt
    with pytest.raises(OnnxShiftError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write_bytes("/dev/full", b"whole")


@pytest.mark.parametrize("kind, major, minor", [(stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 7, 200)])
def test_a_device_node_is_never_replaced(tmp_path: Path, kind: int, major: int, minor: int) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o600 | kind, os.makedev(major, minor))
        node.open("rb").close() if kind == stat.S_IFCHR else None
    except PermissionError:
        pytest.skip("device nodes need root, and a file system that allows them")
    if kind == stat.S_IFCHR:
        check_output(node)
        write_text(node, "gone")
    else:
        for act in (check_output, lambda path: write_bytes(path, b"x")):
            with pytest.raises(OnnxShiftError, match="node: is a block device, not a file to write"):
                act(node)
    found = node.lstat()
    assert stat.S_IFMT(found.st_mode) == kind and found.st_rdev == os.makedev(major, minor)
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


WRITES = """
import sys
from onnx_shift.files import write_bytes
print("first")
write_bytes(sys.argv[1], bytes(70_000))
print("last")
"""


@pytest.mark.parametrize("target", ["-", "/dev/stdout"])
def test_standard_output_is_written_whatever_it_is(tmp_path: Path, target: str) -> None:
    command = [sys.executable, "-c", WRITES, target]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert done.stdout == b"first\n" + bytes(70_000) + b"last\n"
    with (tmp_path / "out").open("wb") as file:
        subprocess.run(command, check=True, stdout=file, timeout=60)
    assert (tmp_path / "out").read_bytes() == b"first\n" + bytes(70_000) + b"last\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_standard_output_is_one_and_no_folder() -> None:
    with pytest.raises(OnnxShiftError, match="-: two results cannot both go to standard output"):
        check_output(Path("-"), Path("-"))
    with pytest.raises(OnnxShiftError, match="-: standard output is no folder"):
        make_folder(Path("-"))
