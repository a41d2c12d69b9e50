"""Which margin makes a cascade of two variants as accurate as the larger: chosen on held-out images."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from onnx_shift.portfolio.profile import Cascade


@dataclass(frozen=True)
class Judged:
    """What a model made of each image (N,): by how much its largest score exceeds the next, and whether it is right."""

    margins: NDArray[np.floating]
    right: NDArray[np.bool_]


def choose_margin(small: Judged, large: Judged) -> Cascade | None:
    """Return the least margin below which the larger model has to be asked for both to be as accurate as it is alone.

    None where the smaller is as accurate by itself, or asking for fewer than all images is never enough.
    """
    order = np.argsort(small.margins, kind="stable")
    margins, by_small, by_large = small.margins[order], small.right[order].astype(int), large.right[order].astype(int)
    right = by_small.sum() + np.concatenate([[0], np.cumsum(by_large - by_small)])  # with the first k images asked
    apart = np.concatenate([[True], np.diff(margins) > 0])  # a margin tells the k-th image from the one before
    enough = np.flatnonzero(apart & (right[:-1] >= right[-1]))
    if not enough.size or enough[0] == 0:
        return None
    asked = int(enough[0])
    return Cascade(float(margins[asked]), asked / len(order), float(right[asked] / len(order)))


def cascades_of(judged: Mapping[str, Judged]) -> dict[str, dict[str, Cascade]]:
    """Return by model, of `judged` the smallest first, and by each that is larger, the cascade of the two where it
    helps.
    """
    names = list(judged)
    found: dict[str, dict[str, Cascade]] = {name: {} for name in names}
    for small, large in combinations(names, 2):
        cascade = choose_margin(judged[small], judged[large])
        if cascade is not None:
            found[small][large] = cascade
    return found
