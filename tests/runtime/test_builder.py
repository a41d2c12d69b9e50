"""Making variants ready, with one copy of each in memory."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import Portfolio, optimise
from tests.runtime.conftest import Answers, Make, answers_of, assert_equal


def test_only_one_copy_stays_in_memory(make_switcher: Make, portfolio: Portfolio, images: np.ndarray) -> None:
    before = portfolio.stored_bytes
    model = make_switcher(portfolio)
    answers_of(model, images)
    assert portfolio.stored_bytes < 1.1 * before
    contents = [model._leases.choice.builder._content(variant, 1)[0] for variant in portfolio]
    assert portfolio.stored_bytes == sum(content.deflated_bytes for content in contents)


def test_switchers_over_one_portfolio_share_what_is_optimised(
    make_switcher: Make, portfolio: Portfolio, images: np.ndarray
) -> None:
    first, second = make_switcher(portfolio), make_switcher(portfolio)
    answers_of(first, images)
    held = portfolio.stored_bytes
    answers_of(second, images)
    assert portfolio.stored_bytes == held


def test_a_portfolio_holds_one_copy_whatever_the_options_of_its_switchers(
    make_switcher: Make, portfolio_path: Path, tmp_path: Path, answers: Answers, images: np.ndarray
) -> None:
    (tmp_path / "copy.zip").write_bytes(portfolio_path.read_bytes())
    portfolio = Portfolio.open(tmp_path / "copy.zip")
    first = make_switcher(portfolio)
    assert_equal(answers_of(first, images), answers)
    held = portfolio.stored_bytes
    for name in ("enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse"):
        other = ort.SessionOptions()
        other.intra_op_num_threads = 1
        setattr(other, name, False)
        assert_equal(answers_of(make_switcher(portfolio, other), images), answers)
    assert len(list((tmp_path / "cache").glob("*.zip"))) == 4 * len(answers)
    assert portfolio.stored_bytes == held
    (tmp_path / "copy.zip").unlink()
    assert_equal(answers_of(first, images), answers)  # it keeps what it once had


def test_a_switcher_that_optimises_nothing_reads_the_file_once(
    make_switcher: Make,
    portfolio: Portfolio,
    answers: Answers,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers_of(make_switcher(portfolio), images)  # lets go what the file holds
    plain = ort.SessionOptions()
    plain.intra_op_num_threads = 1
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = make_switcher(portfolio, plain)
    found = answers_of(model, images)
    monkeypatch.setattr(Portfolio, "open", None)
    again = answers_of(model, images)
    for name, answer in answers.items():
        np.testing.assert_array_equal(again[name], found[name])
        np.testing.assert_allclose(found[name], answer, rtol=1e-4, atol=1e-4)


def test_a_graph_that_cannot_be_taken_apart_is_served_as_it_is(
    make_switcher: Make, answers: Answers, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimise, "optimise", lambda *_: None)
    model = make_switcher()
    assert_equal(answers_of(model, images), answers)
    assert model.portfolio.stored_bytes == sum(variant.deflated_bytes for variant in model.portfolio)
