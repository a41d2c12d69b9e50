"""Small models of three sizes, and the portfolio packed from them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import (
    ModelSwitcher,
    Portfolio,
)
from onnx_shift.runtime.load import Load
from onnx_shift.runtime.portfolio import Variant
from tests.networks import network

WIDTHS = {"small": 16, "medium": 32, "large": 64}


@pytest.fixture(scope="module", autouse=True)
def _no_kernels() -> Iterator[None]:
    """Answers are compared bit by bit, and our kernels add in another order: their own tests switch them on again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_SHIFT_KERNELS", "none")
        yield


@pytest.fixture(scope="session")
def model_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {name: folder / f"{name}.onnx" for name in WIDTHS}
    for name, path in paths.items():
        onnx.save(network(WIDTHS[name]), path)
    return paths


@pytest.fixture(scope="session")
def portfolio_path(model_paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portfolio") / "portfolio.zip"
    pack(list(model_paths.values()), path)
    return path


@pytest.fixture
def portfolio(portfolio_path: Path) -> Portfolio:
    return Portfolio.open(portfolio_path)


@pytest.fixture(scope="session")
def options() -> ort.SessionOptions:
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = 1
    return chosen


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def answers(model_paths: dict[str, Path], options: ort.SessionOptions, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a plain session answers, by variant."""
    return {
        name: ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"input": images})[0]
        for name, path in model_paths.items()
    }


@pytest.fixture
def make_switcher(portfolio_path: Path, options: ort.SessionOptions, tmp_path: Path) -> Callable[..., ModelSwitcher]:
    """Open a switcher over the portfolio, with a cache of its own; closed when the test ends."""
    opened = []

    def make(source: object = portfolio_path, sess_options: object = options, **arguments: object) -> ModelSwitcher:
        arguments = {"providers": ["CPUExecutionProvider"], "cache": tmp_path / "cache", **arguments}
        opened.append(ModelSwitcher(source, sess_options, **arguments))
        return opened[-1]

    yield make
    for switcher in opened:
        switcher.close()


Make = Callable[..., ModelSwitcher]


class Alternate:
    """Small and large in turn, the largest asked for as the variant itself."""

    interval_s = 0.02

    def __init__(self) -> None:
        self.seen: list[Load] = []

    def decide(self, load: Load) -> str | Variant | None:
        self.seen.append(load)
        return "smaller" if len(self.seen) // 2 % 2 else load.variants[-1]


class Fails:
    """Fails at its first look; `looks` counts."""

    interval_s = 0.01

    def __init__(self) -> None:
        self.looks, self.again = 0, threading.Event()

    def decide(self, load: Load) -> str | None:
        self.looks += 1
        if self.looks == 1:
            raise ZeroDivisionError("of a policy")
        self.again.set()
        return None


Answers = dict[str, np.ndarray]


def answers_of(model: ModelSwitcher, images: np.ndarray) -> Answers:
    found = {}
    for variant in model.portfolio:
        model.switch(variant.name)
        found[variant.name] = model.run(None, {"input": images})[0]
    return found


def assert_equal(found: Answers, wanted: Answers) -> None:
    assert found.keys() == wanted.keys()
    for name, answer in wanted.items():
        np.testing.assert_array_equal(found[name], answer)


def answer(model: ModelSwitcher, images: np.ndarray) -> np.ndarray:
    return model.run(None, {"input": images})[0]
