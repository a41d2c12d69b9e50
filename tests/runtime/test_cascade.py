"""Splitting a batch between two variants."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from onnx_shift.runtime.cascade import Run, answer, check_cascade, margins, next_of
from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Signature, Variant

FLOAT = Signature("x", "tensor(float)", ["N", 4])
SCORES = Signature("scores", "tensor(float)", ["N", 3])
ASKS = Variant("a", 1, 1, 0, "", {"cascade": {"c": {"margin": 0.5}, "gone": {"margin": 1}, "d": {"margin": "x"}}})
OTHERS = [Variant(name, size, size, 0, "") for size, name in enumerate("bcd", 2)]


def portfolio(
    *, scores: Signature = SCORES, inputs: Sequence[Signature] = (FLOAT,), first: Variant = ASKS
) -> Portfolio:
    return Portfolio([first, *OTHERS], {}, inputs, [scores])


def test_a_margin_is_what_the_largest_score_exceeds_the_next_by() -> None:
    np.testing.assert_allclose(margins(np.array([[1.0, 3.0, 2.5], [7.0, 7.0, 0.0]])), [0.5, 0.0])
    assert margins(np.zeros((2, 1))).tolist() == [np.inf, np.inf]


def test_the_nearest_larger_variant_that_a_margin_is_stated_for_is_asked() -> None:
    found = next_of(ASKS, portfolio())
    assert found is not None and (found.variant.name, found.margin) == ("c", 0.5)
    assert next_of(OTHERS[0], portfolio()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": Signature("boxes", "tensor(float)", ["N", 9, 4])}, "the output boxes is no table of class scores"),
        ({"scores": Signature("class", "tensor(int64)", ["N", 3])}, "the output class is no table of class scores"),
        ({"inputs": [Signature("x", "tensor(float)", [8, 4])]}, "the first axis of x is not free"),
        ({"inputs": [FLOAT, Signature("t", "tensor(float)", [])]}, "the first axis of t is not free"),
        ({"first": OTHERS[0]}, "no variant states a margin; make the profile with --cascade"),
    ],
)
def test_what_cannot_be_asked_image_by_image_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SwitchError, match=message):
        check_cascade(portfolio(**changes))
    check_cascade(portfolio())


def runs(scores: np.ndarray, seen: list[Any], offset: float) -> Run:
    """A run that looks images up by their number and notes which it was asked."""

    def run(names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        rows = np.asarray(feed["x"])
        seen.append(rows.tolist())
        return [scores[rows].copy() if name == "scores" else rows + offset for name in names]

    return run


@pytest.fixture
def ask() -> Callable[..., tuple[list[Any], int, int, list[Any], list[Any]]]:
    small = np.array([[0.0, 1.0], [0.0, 0.2], [2.0, 0.0], [np.nan, 0.0]])

    def ask(rows: Any, names: Sequence[str] = ("scores",)) -> tuple[list[Any], int, int, list[Any], list[Any]]:
        first: list[Any] = []
        second: list[Any] = []
        feed = {"x": rows}
        found = answer(runs(small, first, 0.0), runs(small + 10, second, 0.5), 0.5, names, "scores", feed)
        return [value.tolist() for value in found.outputs], found.sure, found.unsure, first, second

    return ask


def test_only_unsure_images_go_on(ask: Callable[..., Any]) -> None:
    (scores,), sure, unsure, first, second = ask(np.array([0, 1, 2]))
    assert (scores, sure, unsure) == ([[0.0, 1.0], [10.0, 10.2], [2.0, 0.0]], 2, 1)
    assert (first, second) == ([[0, 1, 2]], [[1]])
    assert ask([3, 0])[2:] == (1, [[3, 0]], [[3]])  # a score that is no number; a feed of plain lists


def test_all_or_none_are_asked_without_splitting(ask: Callable[..., Any]) -> None:
    assert ask(np.array([1]))[0] == [[[10.0, 10.2]]]
    assert ask(np.array([0, 2]))[1:] == (2, 0, [[0, 2]], [])


def test_every_output_follows_its_image_though_no_scores_were_asked_for(ask: Callable[..., Any]) -> None:
    assert ask(np.array([0, 1, 2]), ["place"])[0] == [[0.0, 1.5, 2.0]]
    places, scores = ask(np.array([1, 2]), ["place", "scores"])[0]
    assert (places, scores) == ([1.5, 2.0], [[10.0, 10.2], [2.0, 0.0]])
