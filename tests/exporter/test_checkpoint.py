"""Checkpoints that are damaged, cut, or of another recipe."""

import resource
from pathlib import Path

import pytest
import torch

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.checkpoint import CheckpointError
from onnx_shift.exporter.recipe import Recipe, override
from tests.exporter.conftest import Start, StoppedError, same, stop_at, stored_weights


def test_a_full_disk_leaves_the_last_good_checkpoint(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    recipe = override(tiny_recipe, levels=1)
    run(recipe, "whole")
    with pytest.raises(StoppedError):
        run(recipe, progress=stop_at(5))
    before = (tmp_path / "run/checkpoints/last.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OnnxShiftError, match=r"round-00\.pt: cannot be written"):
            run(recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == before
    assert not list((tmp_path / "run").rglob("*.tmp"))
    run(recipe)
    assert same(stored_weights(tmp_path / "whole", 1), stored_weights(tmp_path / "run", 1))


def test_a_damaged_checkpoint_is_named_and_can_be_deleted(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    recipe = override(tiny_recipe, levels=1)
    with pytest.raises(StoppedError):
        run(recipe, progress=stop_at(5))
    last = tmp_path / "run/checkpoints/last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0xFF
    last.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt: not a usable checkpoint .*; delete it, and the same command"):
        run(recipe)
    last.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match=r"last\.pt: not a usable checkpoint"):
        run(recipe)
    last.unlink()
    assert len(run(recipe).levels) == 2


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", b"\x80\x02]q\x00.", b"plain"])
def test_a_checkpoint_damaged_in_any_way_is_named(
    tiny_recipe: Recipe, run: Start, tmp_path: Path, content: bytes
) -> None:
    run(tiny_recipe)
    (tmp_path / "run/checkpoints/round-02.pt").unlink()
    (tmp_path / "run/checkpoints/round-01.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"round-01\.pt: not a usable checkpoint"):
        run(tiny_recipe)
    torch.save({"other": 1}, tmp_path / "run/checkpoints/round-01.pt")
    with pytest.raises(CheckpointError, match=r"round-01\.pt: not a usable checkpoint \(holds no round\)"):
        run(tiny_recipe)


def test_checkpoints_without_their_recipe_are_refused(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    run(override(tiny_recipe, levels=0))
    (tmp_path / "run/recipe.json").unlink()
    with pytest.raises(CheckpointError, match=r"run: holds checkpoints, but not the recipe\.json they belong to"):
        run(override(tiny_recipe, levels=1, seed=7))
