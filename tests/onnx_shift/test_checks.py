"""Checks of values out of JSON."""

from collections.abc import Callable
from typing import Any

import pytest

from onnx_shift.checks import is_number, is_positive, is_share, is_text


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (is_text, ["", "a"], [1, None]),
        (is_number, [0, -1.5], [True, "1", float("nan"), float("inf"), 10**400]),
        (is_positive, [1, 0.1], [0, -1, True]),
        (is_share, [0, 1, 0.5], [-0.1, 1.1, False]),
    ],
)
def test_what_fits(check: Callable[[Any], bool], good: list[Any], bad: list[Any]) -> None:
    assert all(map(check, good)) and not any(map(check, bad))
