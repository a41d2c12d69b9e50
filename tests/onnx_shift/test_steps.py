"""Progress of several steps where there is no terminal."""

import io

from rich.console import Console

from onnx_shift.steps import Steps


def test_without_a_terminal_each_step_is_a_line_and_its_seconds_are_kept() -> None:
    shown = io.StringIO()
    with Steps(Console(file=shown, width=80, markup=False)) as steps:
        with steps.step("train [v2]") as advance:
            advance(0.5, "half")
        steps.note("a remark")
    assert shown.getvalue().splitlines() == ["train [v2] …", "a remark"]
    assert 0 <= steps.seconds["train [v2]"] < 60
