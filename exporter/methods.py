"""How weights are chosen: the table of methods, and `next_mask`, which turns a method's scores into the
next mask.

A further method is one function from `Scoring` to scores and one entry: of `METHODS`, or anywhere else,
named on the command line as `package.module:method`.
"""

from dataclasses import replace

import torch

from onnx_shift.exporter.masks import Mask, Scores, apply_mask, block_rows, count_kept, select, select_blocks
from onnx_shift.exporter.recipe import Recipe, RecipeError, rounds_of_levels
from onnx_shift.exporter.refill import refill
from onnx_shift.exporter.saliency import grasp, ntk_sap, snip, synflow
from onnx_shift.exporter.scoring import Method, Scoring
from onnx_shift.exporter.structure import positions
from onnx_shift.files import import_named


def magnitude(scoring: Scoring) -> Scores:
    """|w| (Frankle & Carbin, ICLR 2019)."""
    return {name: weight.detach().abs() for name, weight in scoring.weights().items()}


def chance(scoring: Scoring) -> Scores:
    """Uniform random numbers."""
    return {
        name: torch.rand(weight.shape, generator=scoring.generator).to(weight.device)
        for name, weight in scoring.weights().items()
    }


METHODS: dict[str, Method] = {
    "imp": Method(magnitude, "trained"),
    "refill": Method(magnitude, "trained", reshape=refill),
    "one-shot": Method(magnitude, "dense"),
    "random": Method(chance, "initial"),
    "snip": Method(snip, "initial"),
    "grasp": Method(grasp, "initial"),
    "synflow": Method(synflow, "initial", passes=100),
    "ntk-sap": Method(ntk_sap, "initial", passes=20),
}


def find_method(name: str) -> Method:
    """The method `name` of the table, or `package.module:method`. Raises RecipeError when there is none."""
    if name in METHODS:
        return METHODS[name]
    if ":" not in name:
        raise RecipeError(f"--method {name}: choose one of {', '.join(METHODS)}, or package.module:method")
    found = import_named(name, "--method")
    if not isinstance(found, Method):
        raise RecipeError(f"--method {name}: is not a Method of onnx_shift.exporter.scoring")
    return found


def next_mask(method: Method, scoring: Scoring, keep: int) -> Mask:
    """The mask of the `keep` weights that `method` scores highest among those of the scoring's mask; with a recipe's
    `block`, of the blocks.

    Removal is spread over the method's passes in equal factors; a method may then reshape the selection.
    """
    recipe, start = scoring.recipe, scoring.mask
    remaining = count_kept(start)
    costs = positions(scoring.model, scoring.image_shape) if recipe.rank == "cost" else {}
    rows = block_rows(scoring.model, tuple(start), recipe.block) if recipe.block > 1 else None
    for number in range(1, method.passes + 1):
        last = number == method.passes
        target = keep if last else round(remaining * (keep / remaining) ** (number / method.passes))
        apply_mask(scoring.model, scoring.mask)
        scores = method.score(scoring)
        for name, cost in costs.items():
            if name in scores:
                scores[name] = scores[name] / cost**recipe.cost_power
        if rows is None:
            mask = select(scores, scoring.mask, target, recipe.least_density)
        else:
            mask = select_blocks(scores, scoring.mask, target, rows, recipe.least_density)
        scoring = replace(scoring, mask=mask)
    if method.reshape is None or scoring.round < _first_reshaped(recipe):
        return scoring.mask
    if scoring.round == _first_reshaped(recipe):  # the one place where a mask may grow: channels become whole
        start = {name: torch.ones_like(kept) for name, kept in start.items()}
    return method.reshape(replace(scoring, mask=start), scoring.mask)


def _first_reshaped(recipe: Recipe) -> int:
    """The round from which masks are reshaped: the one that ends level `refill_from`."""
    levels = replace(recipe, levels=max(recipe.levels, recipe.refill_from))
    return rounds_of_levels(levels, iterative=True)[recipe.refill_from]
