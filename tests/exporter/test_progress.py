"""What the user sees while training."""

from onnx_shift.exporter.recipe import Recipe
from onnx_shift.exporter.rounds import Progress
from tests.exporter.conftest import Start


def test_progress_tells_the_place_and_the_time_left(tiny_recipe: Recipe, run: Start) -> None:
    seen: list[Progress] = []
    run(tiny_recipe, progress=seen.append)
    assert len(seen) == 6 + 5 + 5  # later rounds begin at the rewind step
    assert [progress.done for progress in seen] == [step / 16 for step in range(16)]
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left is not None
    assert 0 < seen[-1].seconds_left < 60
    assert (seen[-1].round, seen[-1].epoch, seen[-1].ratio) == (2, 2, 4)
