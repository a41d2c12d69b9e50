"""A replay while it runs, in one line."""

from onnx_shift.runtime.replay import Moment
from onnx_shift.views.timeline import moment_line


def test_a_moment_is_one_line_of_figures_with_units() -> None:
    line = moment_line(Moment("policy", 3.25, 30, 41.6, 12.34, 5, "level-03"))
    assert line == "policy:   3.2 of 30 s,     42 requests/s, p95   12.3 ms,    5 waiting, level-03"
