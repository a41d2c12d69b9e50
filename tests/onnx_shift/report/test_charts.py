"""Axes, labels and the front of a chart."""

import json

import pytest

from onnx_shift.report.charts import Axis, cost_axis, linear_axis
from onnx_shift.report.evidence import Evidence
from onnx_shift.report.page import render_page
from tests.onnx_shift.report.examples import EVIDENCE, REPLAY


def test_long_names_are_shortened_to_what_tells_them_apart_with_the_whole_name_beside() -> None:
    names = {name: f"network-with-a-long-name-{name}-fine-tuned" for name in ("half", "tiny")}
    text = json.dumps(REPLAY)
    for name, long in names.items():
        text = text.replace(f'"{name}"', f'"{long}"')
    page = render_page(Evidence("long", replay=json.loads(text)))
    assert f"<title>{names['half']}</title>" in page
    assert ">…long-name-half-fin…</text>" in page
    assert ">…long-name-tiny-fin…</text>" in page


def test_pareto_front_of_each_figure_leaves_out_what_another_point_beats() -> None:
    page = render_page(EVIDENCE)
    fronts = [part.split('"')[0] for part in page.split('class="line front" points="')[1:]]
    corners = [len(front.split()) for front in fronts if "22,8" not in front]
    assert corners == [6, 6]  # three points: a corner between two, and the line to the right edge


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (cost_axis("", [1.0, 4.0], "{:g}".format), ["0", "1", "2", "3", "4"]),
        (cost_axis("", [9.0, 150.0], "{:g}".format), ["10", "20", "50", "100"]),
        (cost_axis("", [1.0, 10_000.0], "{:g}".format), ["1", "10", "100", "1000", "10000"]),
        (
            linear_axis("", [0.93, 0.99], "{:.2f}".format),
            ["0.93", "0.94", "0.95", "0.96", "0.97", "0.98", "0.99"],
        ),
        (linear_axis("", [0.5, 0.5], "{:.1f}".format), ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]),
    ],
)
def test_axes_have_round_ticks_and_hold_all_values(axis: Axis, labels: list[str]) -> None:
    assert [label for _, label in axis.ticks] == labels
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value, _ in axis.ticks)
