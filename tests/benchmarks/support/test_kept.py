"""Levels kept below benchmarks/data are those of the run, whole and small enough."""

import hashlib
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch")

from benchmarks.support import kept, trainings
from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.recipe import override
from tests.networks import network


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of imp-preset that has come to its second level, with nothing kept so far."""
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(kept, "UNPACKED", tmp_path / "unpacked")
    monkeypatch.setattr(trainings, "FOLDER", tmp_path / "trainings")
    monkeypatch.setattr(trainings, "LOGS", tmp_path / "logs")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text(override(trainings.recipe_of("imp-preset"), data="elsewhere").to_json())
    rows = [f"{level},{level},{2**level},{400 >> level},400,0.{85 + level},x" for level in range(3)]
    (folder / "levels.csv").write_text("\n".join(["level,round,ratio,kept,total,accuracy,onnx", *rows]) + "\n")
    (folder / "metrics.csv").write_text("round,seconds\n0,100\n1,120\n2,110\n3,130\n")
    for level in range(3):
        onnx.save(network(16, zeros=level / 4), folder / f"level-{level:02d}.onnx")
    return folder


def test_an_unfinished_run_is_kept_with_the_levels_that_it_has(run: Path) -> None:
    assert "python -m benchmarks train imp-preset" in (trainings.missing("imp-preset") or "")
    with pytest.raises(trainings.TrainingError, match="no training imp-preset below"):
        trainings.run_of("imp-preset")
    folder = kept.keep(run, "imp-preset")
    assert kept.main([str(run), "imp-preset"]) == 0 and kept.changed() == []
    assert (folder / "metrics.csv").read_text() == "round,seconds\n0,100\n1,120\n2,110\n"
    assert '"data": "uoft-cs/cifar10"' in (folder / "recipe.json").read_text()
    found = trainings.run_of("imp-preset")
    assert [(level.ratio, level.accuracy) for level in found.levels] == [(1, 0.85), (2, 0.86), (4, 0.87)]
    assert [level.onnx.read_bytes() for level in found.levels] == [
        (run / f"level-{level:02d}.onnx").read_bytes() for level in range(3)
    ]
    assert trainings.missing("imp-preset") is None


def test_some_levels_alone_are_kept_and_the_log_tells_of_all(run: Path) -> None:
    kept.keep(run, "imp-preset", [2])
    found = trainings.run_of("imp-preset")
    assert [level.level for level in found.levels] == [2]
    assert trainings.dense_accuracy(found) == 0.85
    recorded = trainings.recorded_run("imp-preset")
    assert recorded is not None and len(recorded.levels) == 3
    with pytest.raises(OnnxShiftError, match=r"level-07\.onnx: is not there"):
        kept.keep(run, "imp-preset", [7])


def test_what_changed_or_is_too_large_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept.keep(run, "imp-preset")
    (folder / "levels.csv").write_text("other")
    (folder / "metrics.csv").rename(folder / "epochs.csv")
    assert kept.changed() == ["imp-preset/epochs.csv", "imp-preset/levels.csv", "imp-preset/metrics.csv"]
    monkeypatch.setattr(kept, "MOST_BYTES", 1000)
    assert kept.main([str(run), "imp-preset"]) == 1
    assert "bytes, at most 1,000; keep fewer levels of imp-preset" in capsys.readouterr().err


@pytest.mark.skipif(not (kept.FOLDER / kept.SUMS).exists(), reason="no levels are kept in this checkout")
def test_what_this_checkout_keeps_is_whole_and_small_enough() -> None:
    assert kept.changed() == []
    files = [path for path in kept.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= kept.MOST_BYTES
    stated = dict(reversed(line.split("  ")) for line in (kept.FOLDER / kept.SUMS).read_text().splitlines())
    for name, digest in stated.items():
        assert hashlib.sha256((kept.FOLDER / name).read_bytes()).hexdigest() == digest
