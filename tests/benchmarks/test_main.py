"""Running benchmarks: what cannot be measured here keeps the result that it has, and says so."""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.support import results


def test_a_benchmark_for_other_hardware_keeps_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "read_targets", lambda: {"demo": {"speed": {"at_least": 2}}})
    module = cast(
        ModuleType,
        SimpleNamespace(TITLE="Demo", MINUTES=1, __file__=__file__, missing=lambda: "no card", measure=lambda _: 1 / 0),
    )
    assert benchmarks.run("demo", module, again=True) == []
    assert "demo: without a result; not measured here (no card)\n" in capsys.readouterr().out

    kept = {"date": "2024-05-06", "machine": {}, "rows": [{"model": "a"}], "figures": {"speed": 1.5}}
    (tmp_path / "demo.json").write_text(json.dumps(kept))
    assert benchmarks.run("demo", module, again=True) == ["demo: speed 1.5, at least 2: MISSED"]
    assert "demo: as measured on 2024-05-06; not measured here (no card)\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "demo.json").read_text()) == kept


def test_all_benchmarks_that_a_fresh_clone_can_run_fit_into_45_minutes() -> None:
    pytest.importorskip("torch")
    elsewhere = {"cuda", "full_size", "structured_peers"}  # a graphics card, or trainings that are not kept
    minutes = {
        name: module.MINUTES
        for name, module in benchmarks.find_benchmarks().items()
        if name not in elsewhere and not benchmarks.by_name_alone(module)
    }
    assert sum(minutes.values()) <= 45, minutes
    assert {"cifar10", "replay_traces", "cascade"} <= minutes.keys()


def test_the_minutes_of_each_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"demo": ModuleType("demo"), "cuda": ModuleType("cuda")}
    monkeypatch.setattr(benchmarks, "find_benchmarks", lambda: found)
    monkeypatch.setattr(benchmarks, "run", lambda name, module, again: [])
    monkeypatch.setattr(results, "write_all", lambda: None)
    monkeypatch.setattr("sys.argv", ["benchmarks"])
    assert benchmarks.main() == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        [name, "0.0", "min"] for name in ("demo", "cuda", "all")
    ]
