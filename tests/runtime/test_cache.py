"""Graphs optimised once per device, and kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import ModelSwitcher, cache, optimise
from onnx_shift.runtime.cache import cache_key
from onnx_shift.runtime.session import Providers
from tests.runtime.conftest import Answers, Make, answers_of, assert_equal

CPU = Providers(("CPUExecutionProvider",), ({},))


def test_a_second_switcher_finds_every_graph_optimised(
    make_switcher: Make, tmp_path: Path, answers: Answers, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_equal(answers_of(make_switcher(), images), answers)
    assert len(list((tmp_path / "cache").glob("*.zip"))) == 3

    def fail(*_: object) -> None:
        raise AssertionError("optimised again")

    monkeypatch.setattr(optimise, "optimise", fail)
    assert_equal(answers_of(make_switcher(), images), answers)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
def test_a_damaged_entry_is_made_anew(
    make_switcher: Make, tmp_path: Path, answers: Answers, images: np.ndarray, damage: str
) -> None:
    make_switcher().close()
    (entry,) = (tmp_path / "cache").glob("*.zip")
    raw = bytearray(entry.read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 1
    entry.write_bytes({"cut": raw[:-5], "empty": b"", "flipped": raw, "other": b"no zip at all" * 10}[damage])
    assert_equal(answers_of(make_switcher(), images), answers)
    assert len(entry.read_bytes()) == len(raw)


def test_entries_may_go_while_a_switcher_runs(
    make_switcher: Make, tmp_path: Path, answers: Answers, images: np.ndarray
) -> None:
    model = make_switcher()
    for entry in (tmp_path / "cache").iterdir():
        entry.unlink()
    assert_equal(answers_of(model, images), answers)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    make_switcher: Make,
    tmp_path: Path,
    answers: Answers,
    images: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_equal(answers_of(make_switcher(cache=tmp_path / "file" / "cache"), images), answers)
    assert "the optimised graph is not kept" in caplog.text


def test_the_key_depends_on_all_that_the_graph_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ort.SessionOptions()
    keys = {cache_key("model", options, CPU), cache_key("other", options, CPU)}
    keys.add(cache_key("model", options, Providers(("CUDAExecutionProvider",), ({},))))
    keys.add(cache_key("model", options, Providers(("CPUExecutionProvider",), ({"arena": "0"},))))
    basic = ort.SessionOptions()
    basic.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    keys.add(cache_key("model", basic, CPU))
    configured = ort.SessionOptions()
    configured.add_session_config_entry("session.disable_quant_qdq", "1")
    keys.add(cache_key("model", configured, CPU))
    for entry in ("session.x64quantprecision", "session.qdqisint8allowed"):
        configured = ort.SessionOptions()
        configured.add_session_config_entry(entry, "1")
        keys.add(cache_key("model", configured, CPU))
    monkeypatch.setattr(cache, "_processor", lambda: "another processor")
    keys.add(cache_key("model", options, CPU))
    monkeypatch.setattr(ort, "__version__", "9.9")
    keys.add(cache_key("model", options, CPU))
    assert len(keys) == 10
    assert cache_key("model", options, CPU) in keys


def test_logging_makes_no_other_graph() -> None:
    loud = ort.SessionOptions()
    loud.logid, loud.log_severity_level, loud.enable_profiling = "mine", 0, True
    loud.profile_file_prefix = "elsewhere"
    assert cache_key("model", loud, CPU) == cache_key("model", ort.SessionOptions(), CPU)


def test_an_entry_under_another_s_name_is_not_taken(
    make_switcher: Make, tmp_path: Path, answers: Answers, images: np.ndarray
) -> None:
    answers_of(make_switcher(), images)
    paths = sorted((tmp_path / "cache").glob("*.zip"))
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert_equal(answers_of(make_switcher(), images), answers)


def test_a_folder_that_may_not_be_looked_into_is_ignored(
    make_switcher: Make, answers: Answers, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_switcher().close()

    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", forbidden)
    model = make_switcher()
    monkeypatch.undo()
    assert_equal(answers_of(model, images), answers)


def test_where_entries_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(tmp_path))
    assert cache.default_folder() == tmp_path
    monkeypatch.setenv("ONNX_SHIFT_CACHE", "")
    assert cache.default_folder() is None
    monkeypatch.delenv("ONNX_SHIFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache.default_folder() == tmp_path / "xdg" / "onnx-shift"


def test_the_default_folder_is_used(
    portfolio_path: Path, options: ort.SessionOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(tmp_path / "chosen"))
    ModelSwitcher(portfolio_path, options, ["CPUExecutionProvider"]).close()
    assert len(list((tmp_path / "chosen").glob("*.zip"))) == 1


def test_leftovers_of_killed_processes_are_removed(make_switcher: Make, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    old, new = folder / ".key.zip.a.tmp", folder / ".key.zip.b.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    make_switcher()
    assert not old.exists() and new.exists()


SERVE = """
import sys, numpy as np, onnxruntime as ort
from onnx_shift.runtime import ModelSwitcher
options = ort.SessionOptions(); options.intra_op_num_threads = 1
images = np.random.default_rng(7).standard_normal((2, 3, 8, 8)).astype(np.float32)
for _ in range(int(sys.argv[3])):
    with ModelSwitcher(sys.argv[1], options, ["CPUExecutionProvider"], cache=sys.argv[2]) as model:
        for variant in model.portfolio:
            model.switch(variant)
            print(variant.name, model.run(None, {"input": images})[0].tobytes().hex(), flush=True)
"""


def serve(portfolio_path: Path, folder: Path, times: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SERVE, str(portfolio_path), str(folder), str(times)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_several_processes_share_one_folder(portfolio_path: Path, tmp_path: Path, answers: Answers) -> None:
    processes = [serve(portfolio_path, tmp_path / "cache", 2) for _ in range(3)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        lines = [line.split() for line in output.splitlines()]
        assert len(lines) == 6
        assert all(answers[name].tobytes().hex() == answer for name, answer in lines)
    assert len(list((tmp_path / "cache").glob("*.zip"))) == 3


WRITE_FOREVER = """
import sys, numpy as np
from pathlib import Path
from onnx_shift.runtime import cache
from onnx_shift.runtime.archive import new_member
from onnx_shift.runtime.content import Content
content = Content(new_member("model.onnx", b"x" * 100), {"w.bin": new_member("w.bin", bytes(3_000_000))}, ())
print("ready", flush=True)
while True:
    cache.store(Path(sys.argv[1]), "key", content)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_process_killed_while_writing_leaves_a_whole_entry_or_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.random() * 0.1)
        process.kill()
        process.communicate()
        entry = tmp_path / "key.zip"
        if entry.exists():
            content = cache.load(tmp_path, "key")
            assert content is not None and content.weights["w.bin"].content().size == 3_000_000
            whole += 1
    assert whole > 0
