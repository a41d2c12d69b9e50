"""Two variants at once: a small one answers, and a larger one is asked for those images where it is unsure.

Unsure is an image whose two largest scores lie closer together than a margin, which `onnx-shift profile --cascade`
chooses on held-out images for every variant and larger one, and which stands in the smaller one's metadata. (Park et
al., CODES+ISSS 2015, call it a big/little network.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Variant

Run = Callable[[Sequence[str], Mapping[str, Any]], list[Any]]  # outputs by name, of a feed


class Next(NamedTuple):
    """Whom a variant that is unsure asks, and below which margin it is."""

    variant: Variant
    margin: float


class Answer(NamedTuple):
    """The outputs of a request, and how many of its images each of the two variants answered."""

    outputs: list[Any]
    sure: int
    unsure: int


def next_of(variant: Variant, portfolio: Portfolio) -> Next | None:
    """Return the smallest of the larger variants that `variant` has a margin for, None where there is none."""
    stated = variant.metadata.get("cascade")
    for larger in portfolio.variants[portfolio.variants.index(variant) + 1 :] if isinstance(stated, dict) else ():
        entry = stated.get(larger.name)
        margin = entry.get("margin") if isinstance(entry, dict) else None
        if isinstance(margin, int | float) and margin > 0:
            return Next(larger, float(margin))
    return None


def check_cascade(portfolio: Portfolio) -> None:
    """Raise SwitchError for a portfolio that cannot be asked image by image, or states no margin."""
    scores = portfolio.outputs[0]
    if scores.type not in ("tensor(float)", "tensor(double)") or len(scores.shape) != 2 or scores.shape[1] == 1:
        raise SwitchError(f"cascade: the output {scores.name} is no table of class scores (images, classes)")
    for value in (*portfolio.inputs, *portfolio.outputs):
        if not value.shape or (isinstance(value.shape[0], int) and value.shape[0] != 1):
            raise SwitchError(f"cascade: the first axis of {value.name} is not free, so images cannot be told apart")
    if all(next_of(variant, portfolio) is None for variant in portfolio):
        raise SwitchError("cascade: no variant states a margin; make the profile with --cascade, and pack with it")


def margins(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return by how much the largest score of each image exceeds the next (N,), of scores (N, classes)."""
    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def answer(small: Run, large: Run, margin: float, names: Sequence[str], scores: str, feed: Mapping[str, Any]) -> Answer:
    """Return the outputs `names` for the images of `feed`, of `small` where its `scores` are `margin` apart, else of
    `large`, which is asked for these alone. A score that is no number is unsure.
    """
    asked = list(names) if scores in names else [*names, scores]
    outputs = small(asked, feed)
    rows = np.flatnonzero(~(margins(outputs[asked.index(scores)]) >= margin))
    count = len(outputs[asked.index(scores)])
    outputs = outputs[: len(names)]
    if rows.size == count:
        outputs = large(names, feed)
    elif rows.size:
        for output, better in zip(
            outputs, large(names, {k: np.asarray(v)[rows] for k, v in feed.items()}), strict=True
        ):
            output[rows] = better
    return Answer(outputs, count - rows.size, int(rows.size))
