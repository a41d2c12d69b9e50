"""Driving a load trace against a portfolio."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import ModelSwitcher, Portfolio, SwitchError
from onnx_shift.runtime.replay import Moment, Timeline, replay
from onnx_shift.runtime.trace import Trace, TraceError
from tests.runtime.conftest import Alternate, Fails


def test_a_replay_without_its_policy_is_refused(
    portfolio: Portfolio, options: ort.SessionOptions, tmp_path: Path
) -> None:
    def serve(**given: Any) -> Timeline:
        trace = Trace("short", 0.2, (50.0,), relative=False)
        cpu = ["CPUExecutionProvider"]
        return replay(portfolio, trace, sess_options=options, providers=cpu, cache=tmp_path, **given)

    with pytest.raises(SwitchError, match=r"the policy failed: ZeroDivisionError\('of a policy'\)"):
        serve(make_policy=lambda _: Fails())
    with pytest.raises(SwitchError, match="the policy second failed: ZeroDivisionError"):
        serve(others={"second": lambda _: Fails()})
    lost = type("Lost", (), {"interval_s": 0.01, "decide": lambda self, load: "nonesuch"})
    with pytest.raises(
        SwitchError, match=r"the policy failed: .*no variant 'nonesuch'; there are: small, medium, large"
    ):
        serve(make_policy=lambda _: lost())
    for objective_ms in (0.0, -1.0, float("inf")):
        with pytest.raises(TraceError, match=f"an objective of {objective_ms:g} ms: must be above 0"):
            serve(objective_ms=objective_ms)


def test_a_replay_whose_requests_cannot_be_asked_ends(
    portfolio: Portfolio, options: ort.SessionOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: ModelSwitcher, *arguments: Any) -> Any:
        if threading.current_thread().name == "onnx-shift-replay":
            raise MemoryError("of a request")
        return ask(self, *arguments)

    ask = ModelSwitcher.run
    monkeypatch.setattr(ModelSwitcher, "run", run)
    trace, cpu = Trace("short", 0.2, (50.0,), relative=False), ["CPUExecutionProvider"]
    with pytest.raises(MemoryError, match="of a request"):
        replay(portfolio, trace, sess_options=options, providers=cpu, cache=tmp_path)


@pytest.fixture(scope="module")
def timeline(portfolio_path: Path, options: ort.SessionOptions, tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    moments: list[Moment] = []
    found = replay(
        Portfolio.open(portfolio_path),
        Trace("short", 0.25, (80.0, 160.0, 80.0), relative=False),
        objective_ms=1000.0,
        make_policy=lambda objective_ms: Alternate(),
        others={"other": lambda objective_ms: Alternate()},
        sess_options=options,
        providers=["CPUExecutionProvider"],
        cache=tmp_path_factory.mktemp("cache"),
        progress=moments.append,
    )
    assert {moment.run for moment in moments} == {"policy", "other", "smallest", "largest"}
    return found


def test_a_replay_serves_every_request_once_in_each_way(timeline: Timeline) -> None:
    assert set(timeline.runs) == {"policy", "other", "smallest", "largest", "clairvoyant"}
    counts = {timeline.summary(name)["requests"] for name in timeline.runs}
    assert len(counts) == 1 and 40 < counts.pop() < 140
    assert {timeline.summary(name)["failed"] for name in timeline.runs} == {0}
    assert set(timeline.runs["smallest"].variant) == {0} and set(timeline.runs["largest"].variant) == {2}
    assert timeline.runs["policy"].switches and timeline.runs["other"].switches and timeline.accuracies is None
    assert all(np.all(run.latency_ms > 0) for run in timeline.runs.values())


def test_a_time_line_is_ready_for_json(timeline: Timeline) -> None:
    found = json.loads(json.dumps(timeline.to_dict(), allow_nan=False))
    assert found["variants"] == ["small", "medium", "large"]
    assert found["figures"]["accuracy_gain"] is None and found["figures"]["within_of_smallest"] > 0.5
    intervals = found["runs"]["largest"]["intervals"]
    assert [row["seconds"] for row in intervals] == [0.0, 0.25, 0.5]
    assert {row["variant"] for row in intervals} == {"large"}
    assert sum(row["requests_per_second"] for row in intervals) * 0.25 == found["runs"]["largest"]["requests"]
