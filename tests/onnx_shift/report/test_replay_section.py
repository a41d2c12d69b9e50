"""A replay in words and as a chart."""

import json
from pathlib import Path
from typing import Any

import pytest

from onnx_shift.report.evidence import Evidence
from onnx_shift.report.page import render_page
from tests.onnx_shift.report.examples import EVIDENCE, REPLAY


def test_replay_is_told_in_words_and_its_switches_can_be_read() -> None:
    page = render_page(EVIDENCE)
    assert "Trace ramp, 4 seconds, 60 requests; in time means within 40 ms." in page
    assert "90.00% of what the smallest variant answers in time, with 1 switch" in page
    assert "reached 50.00% of the accuracy that knowing the load beforehand would gain" in page
    assert 'aria-label="2.25 s: switched to tiny"' in page


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_variants_are_whole_in_the_chart_of_switches(browser: Any, tmp_path: Path, width: int) -> None:
    text = json.dumps(REPLAY).replace('"half"', '"MobileNetV2-ratio-08"').replace('"tiny"', '"level-03.pruned"')
    path = tmp_path / "report.html"
    path.write_text(render_page(Evidence("names", replay=json.loads(text))))
    screen = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())
    ticks = browser.execute_script(
        "return [...document.querySelectorAll('figure svg .tick')].filter(tick => tick.getClientRects().length)"
        ".map(tick => [tick.textContent, tick.getBBox().x, tick.getBoundingClientRect().right])"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert {"MobileNetV2-ratio-08", "level-03.pruned"} <= {name for name, _, _ in ticks}
    assert min(left for _, left, _ in ticks) >= 0
    assert max(right for _, _, right in ticks) <= width  # all charts fit, without scrolling
