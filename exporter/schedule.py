"""The learning rate as a function of the step."""

import math

from onnx_shift.exporter.recipe import Recipe

ONE_CYCLE_RISE = 0.25  # share of the steps on which the rate rises


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of batch `step` (counted from 0).

    "milestones": times `decay` at each, after a linear warm-up (as OpenLTH). "one-cycle": a linear rise over
    the first quarter, then a cosine to zero.
    """
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "one-cycle":
        rise = max(1.0, ONE_CYCLE_RISE * total)
        if step < rise:
            return recipe.learning_rate * (step + 1) / (rise + 1)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))
    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    rate = recipe.learning_rate * min(1.0, step / warmup_steps) if warmup_steps else recipe.learning_rate
    return rate * recipe.decay ** sum(step >= milestone * steps_per_epoch for milestone in recipe.milestones)
