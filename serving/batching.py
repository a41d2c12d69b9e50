"""Several requests in one run: which can share it, and each one's rows of what comes out."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_shift.serving.codec import Array, Request


def sharing(requests: Mapping[int, Request], most_rows: int) -> list[list[int]]:
    """Return the keys of `requests` in groups that can share a run: equal inputs but for the first dimension, equal
    outputs, and at most `most_rows` rows together unless a request is alone.
    """
    groups: dict[Hashable, list[list[int]]] = {}
    rows: dict[Hashable, int] = {}
    for key, request in requests.items():
        kind, own = _kind(key, request), _rows(request)
        rows[kind] = rows.get(kind, most_rows) + own
        if rows[kind] > most_rows:
            groups.setdefault(kind, []).append([])
            rows[kind] = own
        groups[kind][-1].append(key)
    return [group for kind in groups.values() for group in kind]


def joined(requests: Sequence[Request]) -> Mapping[str, Array]:
    """Return one feed for all of them, one after the other."""
    return {name: np.concatenate([request.feed[name] for request in requests]) for name in requests[0].feed}


def split(arrays: Sequence[Array], requests: Sequence[Request]) -> list[Sequence[Array]] | None:
    """Return each request's rows of the outputs of their common run; None where these do not have as many rows."""
    edges = np.cumsum([_rows(request) for request in requests])
    if any(len(array) != edges[-1] for array in arrays):
        return None
    return list(zip(*(np.split(array, edges[:-1]) for array in arrays), strict=True))


def _kind(key: int, request: Request) -> Hashable:
    shapes = tuple((name, array.shape[1:]) for name, array in sorted(request.feed.items()))
    lengths = {array.shape[:1] for array in request.feed.values()}
    alone = key if len(lengths) != 1 or () in lengths else None  # unequal lengths are for the model to judge
    return tuple(request.outputs), shapes, alone


def _rows(request: Request) -> int:
    array: Any = next(iter(request.feed.values()), None)
    return len(array) if array is not None and array.ndim else 1
