"""Numbers in README and docs are those of docs/results, and the results page is what the files say."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.support import results

ROOT = Path(__file__).parents[3]


RESULT: dict[str, Any] = {
    "title": "Sizes",
    "date": "2024-05-06",
    "minutes": 1.25,
    "machine": {"processor": "P", "cores": 2, "python": "3.11", "versions": {"onnx": "1.20"}},
    "rows": [{"model": "a", "ratio": 5.1429, "count": 12345}, {"model": "b", "ratio": None, "count": 7}],
    "figures": {"ratio": 5.1429, "count": 3},
    "notes": ["One replicate."],
}


def test_readme_and_docs_state_the_figures_of_the_results() -> None:
    measured = results.read_results()
    for path in results.documents():
        if path.exists():
            text = path.read_text()
            message = f"{path.name}: run `.venv/bin/python -m benchmarks.support.results`"
            assert results.filled(text, measured) == text, message


def test_results_page_is_generated() -> None:
    page = ROOT / "docs" / "results" / "README.md"
    if page.exists():
        assert page.read_text() == results.results_page(results.read_results())


def test_marked_places_are_filled_and_the_rest_is_left() -> None:
    text = (
        "Before\n<!-- results sizes -->\nstale\n<!-- end -->\n"
        "is <!-- figure sizes ratio .2f -->9<!-- end --> times <!-- other --> smaller"
    )
    assert results.filled(text, {"sizes": RESULT}) == (
        "Before\n<!-- results sizes -->\n| model | ratio | count |\n| --- | ---: | ---: |\n| a | 5.14 | 12,345 |\n"
        "| b | – | 7 |\n<!-- end -->\n"
        "is <!-- figure sizes ratio .2f -->5.14<!-- end --> times <!-- other --> smaller"
    )


def test_a_place_for_figures_that_do_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError, match="speed"):
        results.filled("<!-- figure sizes speed .2f -->1<!-- end -->", {"sizes": RESULT})


def test_page_names_machine_date_and_how_to_reproduce() -> None:
    page = results.results_page({"sizes": RESULT})
    assert "## Sizes\n" in page
    assert "One replicate." in page
    assert "*2024-05-06, P, 2 cores, Python 3.11, onnx 1.20; 1.2 minutes; [sizes.json](sizes.json)" in page
    assert "`python -m benchmarks sizes`" in page


def test_page_shows_further_tables_by_their_caption() -> None:
    page = results.results_page({"sizes": {**RESULT, "tables": {"By layer": [{"layer": "conv"}]}}})
    assert "By layer:\n\n| layer |\n| --- |\n| conv |\n" in page


def test_targets_are_met_missed_or_not_measured() -> None:
    targets = {"ratio": {"at_least": 5}, "count": {"at_most": 2}, "speed": {"at_least": 1}}
    assert results.check_targets(RESULT["figures"], targets) == [
        (True, "ratio 5.14, at least 5: met"),
        (False, "count 3, at most 2: MISSED"),
        (False, "speed not measured, at least 1: MISSED"),
    ]


def test_every_target_is_for_a_benchmark_that_exists() -> None:
    for name, figures in results.read_targets().items():
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name
        for key, target in figures.items():
            assert set(target) <= {"at_least", "at_most"}, key


def test_a_second_run_is_compared_with_the_spread_of_the_first() -> None:
    lines = results.repeated(
        {"speedup": 2.6, "ratio": 0.3}, {"speedup": (2.5, 2.7), "ratio": (0.31, 0.4), "gone": (0, 1)}
    )
    assert lines == [
        "speedup 2.6: within 2.5–2.7, the spread of the run before",
        "ratio 0.3: OUTSIDE 0.31–0.4, the spread of the run before",
    ]
