"""The files of a run, and whose they are."""

from pathlib import Path

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.checkpoint import CheckpointError
from onnx_shift.exporter.recipe import Recipe, override
from onnx_shift.exporter.rounds import Progress
from tests.exporter.conftest import Start, StoppedError


def test_a_round_trained_again_leaves_no_file_of_other_weights(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    run(tiny_recipe)
    level = tmp_path / "run/level-01.onnx"
    wanted = level.read_bytes()
    level.write_bytes(b"of other weights")
    (tmp_path / "run/checkpoints/round-01.pt").unlink()
    run(tiny_recipe)
    assert level.read_bytes() == wanted


def test_files_of_runs_below_are_left_alone(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    inner, own = (
        tmp_path / "run/other/checkpoints/.last.pt.a.tmp",
        tmp_path / "run/checkpoints/.last.pt.b.tmp",
    )
    for path in (inner, own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    run(tiny_recipe)
    assert inner.exists() and not own.exists()


def test_a_folder_of_another_recipe_is_refused_but_more_levels_are_not(
    tiny_recipe: Recipe, run: Start, tmp_path: Path
) -> None:
    run(override(tiny_recipe, levels=1))
    before = (tmp_path / "run/level-01.onnx").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match=r"another recipe \(seed 0 there, 7 here\); choose another folder"):
        run(override(tiny_recipe, levels=1, seed=7))
    assert [level.kept for level in run(tiny_recipe).levels] == [61_380, 30_690, 15_345]
    assert (tmp_path / "run/level-01.onnx").stat().st_mtime_ns == before


def test_two_processes_cannot_train_in_one_folder(tiny_recipe: Recipe, run: Start) -> None:
    def again(progress: Progress) -> None:
        with pytest.raises(OnnxShiftError, match="another process is training in this folder"):
            run(tiny_recipe)
        raise StoppedError

    with pytest.raises(StoppedError):
        run(tiny_recipe, progress=again)


def test_a_folder_that_cannot_be_made_is_refused(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OnnxShiftError, match="run: cannot be made"):
        run(tiny_recipe)
