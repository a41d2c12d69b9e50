"""Which requests share a run, and whose rows are whose."""

import numpy as np

from onnx_shift.serving.batching import joined, sharing, split
from onnx_shift.serving.codec import Request


def request(rows: int, columns: int = 3, *, output: str = "y") -> Request:
    return Request(None, {"x": np.arange(rows * columns).reshape(rows, columns)}, {output: True})


def test_equal_shapes_and_outputs_share_a_run_up_to_the_limit() -> None:
    requests = {0: request(1), 1: request(2), 2: request(1, 4), 3: request(2), 4: request(1, output="z"), 5: request(9)}
    assert sharing(requests, 4) == [[0, 1], [3], [5], [2], [4]]


def test_inputs_of_unequal_length_are_left_to_the_model() -> None:
    odd = Request(None, {"a": np.zeros((1, 2)), "b": np.zeros((2, 2))}, {"y": True})
    scalar = Request(None, {"a": np.zeros(())}, {"y": True})
    assert sharing({0: odd, 1: odd, 2: scalar, 3: scalar}, 9) == [[0], [1], [2], [3]]


def test_each_gets_its_own_rows_and_other_outputs_are_not_cut() -> None:
    requests = [request(1), request(2)]
    both = joined(requests)["x"]
    assert both.shape == (3, 3)
    own = split([both * 10], requests)
    assert own is not None and [part[0].tolist() for part in own] == [(r.feed["x"] * 10).tolist() for r in requests]
    assert split([both[:2]], requests) is None
