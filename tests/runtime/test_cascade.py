"""Splitting a batch between two variants."""

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profile import Cascade, Latency, Profile, Timing
from onnx_shift.portfolio.profile import Variant as ProfileVariant
from onnx_shift.runtime.cascade import Run, answer, check_cascade, margins, next_of
from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Signature, Variant
from tests.runtime.conftest import Make
from tests.runtime.conftest import answer as answer_of

FLOAT = Signature("x", "tensor(float)", ["N", 4])
SCORES = Signature("scores", "tensor(float)", ["N", 3])
ASKS = Variant("a", 1, 1, 0, "", {"cascade": {"c": {"margin": 0.5}, "gone": {"margin": 1}, "d": {"margin": "x"}}})
OTHERS = [Variant(name, size, size, 0, "") for size, name in enumerate("bcd", 2)]


def portfolio(
    *, scores: Signature = SCORES, inputs: Sequence[Signature] = (FLOAT,), first: Variant = ASKS
) -> Portfolio:
    return Portfolio([first, *OTHERS], {}, inputs, [scores])


def test_a_margin_is_what_the_largest_score_exceeds_the_next_by() -> None:
    np.testing.assert_allclose(margins(np.array([[1.0, 3.0, 2.5], [7.0, 7.0, 0.0]])), [0.5, 0.0])
    assert margins(np.zeros((2, 1))).tolist() == [np.inf, np.inf]


def test_the_nearest_larger_variant_that_a_margin_is_stated_for_is_asked() -> None:
    found = next_of(ASKS, portfolio())
    assert found is not None and (found.variant.name, found.margin) == ("c", 0.5)
    assert next_of(OTHERS[0], portfolio()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": Signature("boxes", "tensor(float)", ["N", 9, 4])}, "the output boxes is no table of class scores"),
        ({"scores": Signature("class", "tensor(int64)", ["N", 3])}, "the output class is no table of class scores"),
        ({"inputs": [Signature("x", "tensor(float)", [8, 4])]}, "the first axis of x is not free"),
        ({"inputs": [FLOAT, Signature("t", "tensor(float)", [])]}, "the first axis of t is not free"),
        ({"first": OTHERS[0]}, "no variant states a margin; make the profile with --cascade"),
    ],
)
def test_what_cannot_be_asked_image_by_image_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SwitchError, match=message):
        check_cascade(portfolio(**changes))
    check_cascade(portfolio())


def runs(scores: np.ndarray, seen: list[Any], offset: float) -> Run:
    """A run that looks images up by their number and notes which it was asked."""

    def run(names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        rows = np.asarray(feed["x"])
        seen.append(rows.tolist())
        return [scores[rows].copy() if name == "scores" else rows + offset for name in names]

    return run


@pytest.fixture
def ask() -> Callable[..., tuple[list[Any], int, int, list[Any], list[Any]]]:
    small = np.array([[0.0, 1.0], [0.0, 0.2], [2.0, 0.0], [np.nan, 0.0]])

    def ask(rows: Any, names: Sequence[str] = ("scores",)) -> tuple[list[Any], int, int, list[Any], list[Any]]:
        first: list[Any] = []
        second: list[Any] = []
        feed = {"x": rows}
        found = answer(runs(small, first, 0.0), runs(small + 10, second, 0.5), 0.5, names, "scores", feed)
        return [value.tolist() for value in found.outputs], found.sure, found.unsure, first, second

    return ask


def test_only_unsure_images_go_on(ask: Callable[..., Any]) -> None:
    (scores,), sure, unsure, first, second = ask(np.array([0, 1, 2]))
    assert (scores, sure, unsure) == ([[0.0, 1.0], [10.0, 10.2], [2.0, 0.0]], 2, 1)
    assert (first, second) == ([[0, 1, 2]], [[1]])
    assert ask([3, 0])[2:] == (1, [[3, 0]], [[3]])  # a score that is no number; a feed of plain lists


def test_all_or_none_are_asked_without_splitting(ask: Callable[..., Any]) -> None:
    assert ask(np.array([1]))[0] == [[[10.0, 10.2]]]
    assert ask(np.array([0, 2]))[1:] == (2, 0, [[0, 2]], [])


def test_every_output_follows_its_image_though_no_scores_were_asked_for(ask: Callable[..., Any]) -> None:
    assert ask(np.array([0, 1, 2]), ["place"])[0] == [[0.0, 1.5, 2.0]]
    places, scores = ask(np.array([1, 2]), ["place", "scores"])[0]
    assert (places, scores) == ([1.5, 2.0], [[10.0, 10.2], [2.0, 0.0]])


BATCH = np.random.default_rng(3).standard_normal((40, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def plain(model_paths: dict[str, Path]) -> dict[str, np.ndarray]:
    """What plain sessions answer to the batch."""
    return {name: ort.InferenceSession(path).run(None, {"input": BATCH})[0] for name, path in model_paths.items()}


@pytest.fixture
def stated(model_paths: dict[str, Path], plain: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """The three models, the small one with a margin below which it asks the large one for half of the batch."""
    half = Cascade(float(np.median(margins(plain["small"]))), 0.5, 0.9)
    profile = Profile(
        {
            name: ProfileVariant(
                Timing({1: Latency(1.0)}),
                1,
                cascade={"large": half} if name == "small" else {},
            )
            for name in model_paths
        }
    )
    pack(list(model_paths.values()), tmp_path / "stated.zip", profile=profile, keep_all=True)
    return tmp_path / "stated.zip"


def test_a_switcher_asks_the_larger_variant_for_unsure_images_and_counts(
    stated: Path, make_switcher: Make, plain: dict[str, np.ndarray]
) -> None:
    unsure = margins(plain["small"]) < np.median(margins(plain["small"]))
    model = make_switcher(stated, start="small", cascade=True)
    found = answer_of(model, BATCH)
    np.testing.assert_allclose(found, np.where(unsure[:, None], plain["large"], plain["small"]), rtol=1e-4, atol=1e-5)
    stats = model.stats()
    assert (stats["sure_images"], stats["unsure_images"]) == (20, 20)
    model.switch("large")  # states no margin: it answers alone
    np.testing.assert_allclose(answer_of(model, BATCH), plain["large"], rtol=1e-4, atol=1e-5)
    assert model.stats()["unsure_images"] == 20
    record = model.switch("small")
    assert record.bytes > make_switcher(stated, start="large").switch("small").bytes  # both of the pair were inflated


def test_both_of_a_pair_go_when_the_model_is_switched(stated: Path, make_switcher: Make, images: np.ndarray) -> None:
    for overlap in (True, False):
        model = make_switcher(stated, start="small", cascade=True, overlap=overlap)
        assert isinstance(model.session, ort.InferenceSession)
        binding = model.io_binding()
        binding.bind_cpu_input("input", images)
        binding.bind_output("logits")
        model.run_with_iobinding(binding)  # by the small one alone
        del binding
        with model._leases.lease(request=False) as serving:
            held = [weakref.ref(session) for session in (serving.session.small, serving.session.large)]
        del serving
        model.switch("medium")
        gc.collect()
        assert [session() for session in held] == [None, None]


def test_a_portfolio_without_margins_is_refused_for_a_cascade(
    stated: Path, portfolio_path: Path, make_switcher: Make, images: np.ndarray
) -> None:
    with pytest.raises(SwitchError, match="no variant states a margin"):
        make_switcher(cascade=True)
    model = make_switcher(stated, start="small", cascade=True)
    with pytest.raises(SwitchError, match="no variant states a margin"):
        model.update(portfolio_path)
    assert len(answer_of(model, images)) == 2 and model.stats()["refused_updates"] == 1
