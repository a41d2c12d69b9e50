from pathlib import Path

import pytest

from onnx_shift.runtime.kernels import build as building


def test_the_library_appears_where_it_is_asked_for(tmp_path: Path) -> None:
    assert building.build(tmp_path / "kernels.so", flags=["-O0"]) == tmp_path / "kernels.so"
    assert b"RegisterCustomOps" in (tmp_path / "kernels.so").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.so"]


@pytest.mark.parametrize(
    "command, message",
    [
        ("no-such-compiler", "no-such-compiler cannot be run: No such file or directory"),
        ("false -x", "false -x failed"),
        ('"no such" cc', "no such cannot be run"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.setenv("CC", command)
    with pytest.raises(RuntimeError, match=message):
        building.build(tmp_path / "kernels.so")
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_it_says_what_it_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "find_compiler", lambda: None)
    with pytest.raises(RuntimeError, match=r"no C compiler was found \(looked for cc, gcc, clang and"):
        building.build(tmp_path / "kernels.so")
