"""The learning rate over an epoch's steps."""

from onnx_shift.exporter.recipe import (
    Recipe,
)
from onnx_shift.exporter.schedule import learning_rate


def test_learning_rate_warms_up_and_falls_at_milestones() -> None:
    recipe = Recipe(epochs=10, learning_rate=1.0, warmup_epochs=2, milestones=(5, 8), decay=0.1)
    rates = [round(learning_rate(recipe, step, 10), 6) for step in (0, 10, 20, 49, 50, 79, 80, 99)]
    assert rates == [0.0, 0.5, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


def test_one_cycle_rises_for_a_quarter_and_ends_near_zero() -> None:
    recipe = Recipe(epochs=10, learning_rate=1.0, schedule="one-cycle")
    rates = [learning_rate(recipe, step, 10) for step in range(100)]
    assert rates.index(max(rates)) == 25
    assert max(rates) == 1.0
    assert rates[-1] < 0.001 < rates[0] < 0.05
