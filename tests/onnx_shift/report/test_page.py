"""The HTML page: what it says, and that it works in a real browser."""

import re
from dataclasses import replace
from typing import Any

from onnx_shift.portfolio.profile import Profile
from onnx_shift.report.evidence import Evidence
from onnx_shift.report.page import render_page
from tests.onnx_shift.report.examples import EVIDENCE, PROFILE, Links, _entry


def test_page_fetches_nothing_and_escapes_what_it_shows() -> None:
    page = render_page(EVIDENCE)
    assert Links(page).fetched == []
    assert "url(" not in page
    assert "@import" not in page
    assert "A &lt;processor&gt;" in page
    assert "<title>A &amp; B</title>" in page


def test_speed_up_stands_with_the_range_of_its_rounds_and_noise_is_marked() -> None:
    page = render_page(EVIDENCE)
    assert "the median of interleaved rounds, in brackets the lowest and the highest of them" in page
    assert "<td>5.00× (4.50–5.50)</td>" in page
    assert "<td>~7 ms</td>" in page
    assert "~ marks what stayed noisy when it was measured again." in page


def test_claimed_accuracies_are_starred_and_said_in_the_csv() -> None:
    assert "93.00%*" not in render_page(EVIDENCE)
    variants = {name: replace(one, accuracy_claimed=name == "half") for name, one in EVIDENCE.profile.variants.items()}
    page = render_page(replace(EVIDENCE, profile=replace(EVIDENCE.profile, variants=variants)))
    assert page.count("<td>93.00%*</td>") == 3 and "half: 93.00%* accurate" in page and "<td>90.00%</td>" in page
    assert "* marks an accuracy that is claimed, not measured." in page and "accuracy_claimed" in page


def test_dense_model_that_was_left_out_is_drawn_hollow() -> None:
    assert 'class="point dense"' in render_page(EVIDENCE)
    page = render_page(replace(EVIDENCE, dropped={"dense": "half is nowhere worse"}))
    assert page.count('<g class="point dense dropped"') == 2  # one for each figure
    assert page.count("</svg>dense, left out</li>") == 2
    assert 'class="point dense"' not in page


def test_accuracies_that_are_all_alike_have_an_axis_within_one_hundred_percent() -> None:
    profile = Profile.from_dict({**PROFILE, "variants": {"dense": _entry(0.995, 10.0, 4_000_000)}})
    page = render_page(Evidence("one", profile))
    ticks = re.findall(r">(\d+\.\d)%</text>", page)
    assert (ticks[0], ticks[-1]) == ("98.5", "100.0")
    assert "smaller, the smallest against the largest" not in page


def test_words_of_a_point_name_its_figures_and_why_it_was_left_out() -> None:
    page = render_page(EVIDENCE)
    assert 'aria-label="half: 93.00% accurate, 900 kB, 6 ms at batch 1, 24 ms at batch 16"' in page
    assert (
        "worse: 90.00% accurate, 950 kB, ~7 ms at batch 1, 28 ms at batch 16\nleft out: half is nowhere worse" in page
    )


def test_browser_shows_the_page_without_a_word_on_the_console(page: Any) -> None:
    assert page.title == "A & B"
    assert page.get_log("browser") == []
    assert sum(chart.is_displayed() for chart in page.find_elements("css selector", "svg[role=group]")) == 5


def test_tooltip_comes_with_keyboard_focus_and_goes_with_escape(page: Any) -> None:
    tip = page.find_element("id", "tip")
    assert not tip.is_displayed()
    page.execute_script("document.querySelector('.point[aria-label^=half]').focus()")
    assert tip.text.startswith("half: 93.00% accurate")
    page.switch_to.active_element.send_keys("\ue00c")
    assert not tip.is_displayed()


def test_variant_choice_shows_its_layers_alone(page: Any) -> None:
    def shown() -> list[str]:
        panels = page.find_elements("css selector", "[data-panel=layers]")
        return [panel.get_attribute("aria-label") for panel in panels if panel.is_displayed()]

    assert shown() == ["tiny"]
    page.find_element("css selector", "#variant").send_keys("half")
    assert shown() == ["half"]


def test_theme_button_turns_the_colours(page: Any) -> None:
    def paper() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    before = paper()
    page.find_element("id", "theme").click()
    assert paper() != before
    page.find_element("id", "theme").click()
    assert paper() == before


def test_theme_follows_the_system(page: Any) -> None:
    papers = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        papers.append(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(251, 251, 250)", "rgb(20, 23, 27)"]


def test_nothing_sticks_out_on_a_phone(page: Any) -> None:
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    widths = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [360, 360]


def test_every_interactive_part_has_a_name(page: Any) -> None:
    nameless = page.execute_script(
        """return [...document.querySelectorAll("a, button, select, summary, [tabindex]")].filter(part =>
        !(part.getAttribute("aria-label") || part.textContent.trim() || part.labels?.length)).length"""
    )
    assert nameless == 0


def test_main_table_fits_a_desktop_and_what_scrolls_on_a_phone_says_so(page: Any) -> None:
    page.set_window_size(1280, 900)
    table = page.find_element("css selector", '[aria-label="Table: variants"]')
    hint = table.find_element("xpath", "preceding-sibling::p[1]")
    measure = "return arguments[0].scrollWidth <= arguments[0].clientWidth"
    assert page.execute_script(measure, table)
    assert not hint.is_displayed()
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert not page.execute_script(measure, table)
    assert hint.text == "Scroll sideways to see the rest →"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
