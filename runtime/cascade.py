"""Two variants at once: a small one answers, and a larger one is asked for those images where it is unsure.

Unsure is an image whose two largest scores lie closer together than a margin, which `onnx-shift profile --cascade`
chooses on held-out images for every variant and larger one, and which stands in the smaller one's metadata. (Park et
al., CODES+ISSS 2015, call it a big/little network.)
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Variant
from onnx_shift.runtime.record import Counts

Run = Callable[[Sequence[str], Mapping[str, Any]], list[Any]]  # outputs by name, of a feed


class Next(NamedTuple):
    """Whom a variant that is unsure asks, and below which margin it is."""

    variant: Variant
    margin: float


class Both:
    """A variant's session that asks another one where it is unsure; all but `run` is the former's alone.

    `scores` is the name of the output of class scores. `counts`, which `lock` guards, hears how many images each of the
    two answered.
    """

    def __init__(
        self,
        small: ort.InferenceSession,
        large: ort.InferenceSession,
        margin: float,
        scores: str,
        counts: Counts,
        lock: AbstractContextManager[Any],
    ) -> None:
        self.small, self.large = small, large
        self._margin, self._scores, self._counts, self._lock = margin, scores, counts, lock
        self._names = [value.name for value in small.get_outputs()]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Answer as `InferenceSession.run` does, every image by the variant that is sure of it."""

        def by(session: ort.InferenceSession) -> Run:
            return lambda names, feed: list(session.run(names, feed, run_options))

        names = self._names if output_names is None else output_names
        found = answer(by(self.small), by(self.large), self._margin, names, self._scores, input_feed)
        with self._lock:
            self._counts.sure_images += found.sure
            self._counts.unsure_images += found.unsure
        return found.outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.small, name)


class Answer(NamedTuple):
    """The outputs of a request, and how many of its images each of the two variants answered."""

    outputs: list[Any]
    sure: int
    unsure: int


def next_of(variant: Variant, portfolio: Portfolio) -> Next | None:
    """Return the smallest of the larger variants that `variant` has a margin for, None where there is none."""
    for larger in portfolio.variants[portfolio.variants.index(variant) + 1 :]:
        try:
            margin = float(variant.metadata["cascade"][larger.name]["margin"])
        except (KeyError, TypeError, ValueError):
            continue
        if margin > 0:
            return Next(larger, margin)
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
