"""A switcher one can watch: records and counts; all variants readied; the portfolio exchanged under load."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import ClosedError, ModelSwitcher, Portfolio, PortfolioError, SwitchError, SwitchRecord
from onnx_shift.runtime.load import Load
from tests.runtime.conftest import network

Make = Callable[..., ModelSwitcher]
Answers = dict[str, np.ndarray]


def packed(folder: Path, name: str, models: dict[str, onnx.ModelProto]) -> Path:
    """Return a portfolio of these models in `folder`."""
    (folder / name).mkdir(parents=True)
    for stem, model in models.items():
        onnx.save(model, folder / name / f"{stem}.onnx")
    pack([folder / name / f"{stem}.onnx" for stem in models], folder / f"{name}.zip")
    return folder / f"{name}.zip"


@pytest.fixture
def other_path(tmp_path: Path) -> Path:
    """A portfolio of the same signature whose models answer otherwise."""
    return packed(tmp_path, "other", {"small": network(24), "medium": network(40), "huge": network(96)})


def test_each_switch_calls_back_with_its_record(make_switcher: Make) -> None:
    told: list[SwitchRecord] = []
    model = make_switcher(on_switch=told.append)
    model.switch("large", why="the night is over")
    model.switch("large")
    model.switch("smaller")
    assert told == list(model.records)
    assert [(r.previous, r.active, r.by, r.why) for r in told] == [
        ("medium", "large", "call", "the night is over"),
        ("large", "medium", "call", ""),
    ]
    assert 1.7e9 < told[0].unix_s <= told[1].unix_s
    with pytest.raises(SwitchError, match="on_switch=3: give a function that takes the record"):
        make_switcher(on_switch=3)


def test_who_is_called_back_may_switch_and_may_fail(make_switcher: Make, caplog: pytest.LogCaptureFixture) -> None:
    model: ModelSwitcher

    def once_more(record: SwitchRecord) -> None:
        if record.active == "large":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(model.switch, "small").result(60)
        raise ValueError("not mine")

    model = make_switcher(on_switch=once_more)
    assert model.switch("large").active == "large"
    assert model.active.name == "small" and len(model.records) == 2
    assert [r.message for r in caplog.records] == ["on_switch failed; the switch is done all the same"] * 2


def test_a_policy_is_named_with_the_load_that_it_saw(make_switcher: Make) -> None:
    class Largest:
        interval_s = 0.001

        def decide(self, load: Load) -> str:
            return "large"

    done = threading.Event()
    model = make_switcher(policy=Largest(), on_switch=lambda record: done.set())
    assert done.wait(60)
    assert model.records[0].by == "policy"
    assert model.records[0].why == "Largest: 0 requests/s, 0 waiting"
    load = Load(1.0, 0.5, 10, 10, 2, 0.1, tuple(float(n) for n in range(1, 101)), model.active, (model.active,))
    assert str(load) == "20 requests/s, 2 waiting, 95 % within 95.0 ms"


def test_stats_are_plain_numbers(make_switcher: Make, images: np.ndarray) -> None:
    model = make_switcher()
    for name in ("large", "small"):
        model.switch(name)
        model.run(None, {"input": images})
    with pytest.raises(ValueError):
        model.run(None, {})
    with pytest.raises(SwitchError):
        model.switch("none")
    model.get_modelmeta()
    stats = model.stats()
    assert all(type(value) in (int, float) for value in stats.values())
    counts = {"requests": 3, "failed_requests": 1, "switches": 2, "failed_switches": 0, "updates": 0, "running": 0}
    assert {key: stats[key] for key in counts} == counts
    assert stats["variants"] == 3 and stats["place"] == 0
    assert stats["weight_bytes"] == model.active.weight_bytes
    assert stats["portfolio_bytes"] == model.portfolio.stored_bytes
    assert stats["switch_ms"] == pytest.approx(sum(record.total_ms for record in model.records))
    assert stats["inflated_bytes"] == sum(record.bytes for record in model.records)
    assert stats["request_ms"] > 0
    with model._leases.lease():
        model.switch("large")
        assert model.stats()["running"] == 1  # on the session before
    assert model.stats()["running"] == 0


def test_after_prepare_no_switch_optimises_a_graph(make_switcher: Make) -> None:
    model = make_switcher()
    model.prepare()
    before = model.active.name
    assert before == "medium" and model.records == ()
    model._leases.choice.builder._find_content = None  # what would look for a variant's content, or make it
    assert [model.switch(name).bytes > 0 for name in ("large", "small")] == [True, True]
    model.close()
    with pytest.raises(ClosedError):
        model.prepare()


def test_an_update_exchanges_the_portfolio(make_switcher: Make, other_path: Path, images: np.ndarray) -> None:
    model = make_switcher(start="small")
    record = model.update(other_path, why="retrained")
    assert (record.previous, record.active, record.by, record.why) == ("small", "small", "update", "retrained")
    assert record.changed and model.records == (record,)
    assert [variant.name for variant in model.portfolio] == ["small", "medium", "huge"]
    assert model.active is model.portfolio["small"] and model.current == (model.portfolio, model.active)
    plain = ModelSwitcher(other_path, providers=["CPUExecutionProvider"], cache=False, start="small")
    for name in ("small", "huge"):
        model.switch(name), plain.switch(name)
        found, wanted = (one.run(None, {"input": images})[0] for one in (model, plain))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    plain.close()
    assert model.stats()["updates"] == 1 and model.stats()["switches"] == 1


def test_where_no_variant_has_the_name_the_nearest_in_size_takes_over(
    make_switcher: Make, tmp_path: Path, portfolio_path: Path
) -> None:
    model = make_switcher(start="large", overlap=False)
    assert model.update(packed(tmp_path, "named", {"a": network(8), "b": network(60), "c": network(90)})).active == "b"
    assert model.update(portfolio_path).active == "large"


@pytest.mark.parametrize("overlap", [True, False])
def test_a_portfolio_that_is_refused_leaves_the_old_one_serving(
    make_switcher: Make, tmp_path: Path, portfolio_path: Path, answers: Answers, images: np.ndarray, overlap: bool
) -> None:
    model = make_switcher(overlap=overlap)
    old = model.portfolio
    raw = portfolio_path.read_bytes()
    lies = Portfolio.open(raw)
    lies.inputs = tuple(type(value)(value.name, value.type, [*value.shape[:-1], 9]) for value in lies.inputs)
    broken = Portfolio.open(raw)
    content = broken.content("large")
    weights = {name: member._replace(stored=np.zeros_like(member.stored)) for name, member in content.weights.items()}
    broken._contents["large"] = content._replace(weights=weights)
    broken._prepared.clear()
    refused: list[tuple[Any, type[Exception], str]] = [
        (tmp_path / "absent.zip", PortfolioError, "absent.zip: cannot be read"),
        (raw[:-1], PortfolioError, "portfolio: no archive, or cut short"),
        (packed(tmp_path, "wide", {"a": network(16, classes=7)}), PortfolioError, r"its outputs are logits .*'N', 7\]"),
        (lies, PortfolioError, r"its inputs are input tensor\(float\)\['N', 3, 8, 9\], not input "),
    ]
    if not overlap:
        refused.append((broken, SwitchError, "large: cannot be made ready .*damaged"))
        model._cache_folder = None
    for source, kind, message in refused:
        with pytest.raises(kind, match=message):
            model.update(source)
    assert model.portfolio is old and model.active.name == "medium" and model.records == ()
    assert model.stats()["refused_updates"] == len(refused)
    np.testing.assert_array_equal(model.run(None, {"input": images})[0], answers["medium"])


@pytest.mark.parametrize("requests, exchanges", [(1000, 10), pytest.param(10_000, 200, marks=pytest.mark.slow)])
def test_no_request_is_lost_or_wrong_while_portfolios_and_variants_are_exchanged(
    make_switcher: Make, portfolio_path: Path, other_path: Path, images: np.ndarray, requests: int, exchanges: int
) -> None:
    model = make_switcher()
    wanted = []
    for path in (portfolio_path, other_path):
        model.update(path)
        for variant in model.portfolio:
            model.switch(variant)
            wanted.append(model.run(None, {"input": images})[0])
    before, exchanging = model.stats()["requests"], threading.Event()
    exchanging.set()

    def serve(share: int) -> int:
        right = 0
        while share or exchanging.is_set():  # the load goes on until the last exchange
            found = model.run(None, {"input": images})[0]
            right += any(np.array_equal(found, want) for want in wanted)
            share = max(0, share - 1)
            sent[threading.get_ident()] = sent.get(threading.get_ident(), 0) + 1
        return right

    sent: dict[int, int] = {}
    with ThreadPoolExecutor(8) as pool:
        serving = [pool.submit(serve, requests // 8) for _ in range(8)]
        for step in range(exchanges):
            model.update((portfolio_path, other_path)[step % 2])
            model.switch(("smaller", "larger", "small")[step % 3])
        exchanging.clear()
        right = sum(future.result() for future in serving)
    assert right == sum(sent.values()) >= requests
    assert model.stats()["requests"] - before == right and model.stats()["failed_requests"] == 0
    assert model.stats()["updates"] == exchanges + 2
