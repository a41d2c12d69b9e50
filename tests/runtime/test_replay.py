import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import ModelSwitcher, Portfolio, SwitchError
from onnx_shift.runtime.controller import Controller
from onnx_shift.runtime.load import Load
from onnx_shift.runtime.meter import Meter
from onnx_shift.runtime.portfolio import Variant
from onnx_shift.runtime.replay import Moment, Timeline, replay
from onnx_shift.runtime.trace import Trace, TraceError

Make = Callable[..., ModelSwitcher]


class Alternate:
    """Small and large in turn, the largest asked for as the variant itself."""

    interval_s = 0.02

    def __init__(self) -> None:
        self.seen: list[Load] = []

    def decide(self, load: Load) -> str | Variant | None:
        self.seen.append(load)
        return "smaller" if len(self.seen) // 2 % 2 else load.variants[-1]


def test_a_policy_switches_while_requests_run(make_switcher: Make, images: np.ndarray) -> None:
    policy = Alternate()
    model = make_switcher(policy=policy, waiting=lambda: 3)
    give_up_s = time.monotonic() + 60  # not asserted: a policy that never switches has to end, too
    while len(model.records) <= 4 and time.monotonic() < give_up_s:
        model.run(None, {"input": images})
    model.close()
    assert len(model.records) > 4
    assert {record.active for record in model.records} > {"medium"}
    assert sum(load.completed for load in policy.seen) > 0
    assert all(load.waiting in (3, 4) for load in policy.seen)
    assert not [thread for thread in threading.enumerate() if thread.name == "onnx-shift-policy"]


def test_load_counts_requests_when_they_come(portfolio: Portfolio) -> None:
    now, queue = [0.0], [0]
    meter = Meter(lambda: now[0])
    switchable = type("Switchable", (), {"portfolio": portfolio, "active": portfolio["small"]})()
    controller = Controller(switchable, Alternate(), meter, lambda: queue[0], lambda: now[0])
    meter.begin("first")
    queue[0], now[0] = 4, 1.0
    load = controller.look(switchable)
    assert (load.arrived, load.completed, load.waiting, load.interval_s) == (5, 0, 5, 1.0)
    assert load.busy_s == pytest.approx(1.0)
    meter.end("first")
    meter.end("of one that never began")
    queue[0], now[0] = 4, 3.0
    load = controller.look(switchable)
    assert (load.arrived, load.completed, load.waiting) == (0, 1, 4)
    assert load.latencies_ms == (1000.0,) and load.busy_s == pytest.approx(0.0)


def test_the_first_request_after_a_pause_is_told_from_those_that_follow() -> None:
    now = [5.0]
    meter = Meter(lambda: now[0])

    def request(pause_s: float, took_s: float) -> None:
        now[0] += pause_s
        meter.begin("one")
        now[0] += took_s
        meter.end("one")

    request(0.0, 0.25)  # the very first
    request(0.0005, 0.125)
    request(0.5, 0.25)
    seen = meter.read()
    assert (seen.completed, seen.busy_s, seen.woken, seen.woken_s) == (3, 0.625, 2, 0.5)
    now[0] += 1.0
    meter.begin("waking")
    now[0] += 0.25
    meter.begin("beside it")
    meter.end("beside it")
    meter.end("waking")
    assert meter.read()[:5] == (0, 2, 0.25, 1, 0.25)
    assert meter.read() == (0, 0, 0.0, 0, 0.0, ())


def test_a_policy_s_failed_switch_is_logged_and_not_the_end(
    portfolio: Portfolio, make_switcher: Make, images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["nonesuch", "nonesuch", "nonesuch", "large", "nonesuch"]

    class Wrong:
        interval_s = 0.01
        asked = threading.Event()

        def decide(self, load: Load) -> str | None:
            if answers:
                return answers.pop(0)
            self.asked.set()
            return None

    model = make_switcher(policy=Wrong())
    assert Wrong.asked.wait(30)
    said = "the policy's switch failed, the variant before still serves: no variant 'nonesuch'"
    assert caplog.text.count(said) == 2  # the same again and again is told once, and once more after a success
    assert model.run(None, {"input": images})[0].shape == (2, 5)


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


def test_what_is_no_policy_is_refused(make_switcher: Make) -> None:
    with pytest.raises(SwitchError, match=r"^policy Fails: is a class; give one of its objects, Fails\(…\)$"):
        make_switcher(policy=Fails)
    with pytest.raises(SwitchError, match=r"^waiting=3: give a function that returns how many requests wait$"):
        make_switcher(policy=Fails(), waiting=3)
    for policy, said in ((json, "None"), (type("Hasty", (), {"interval_s": 0, "decide": len})(), "0")):
        with pytest.raises(SwitchError, match=f"a policy has interval_s, .* here interval_s is {said}$"):
            make_switcher(policy=policy)


def test_an_interval_that_fails_once_is_logged_and_asked_again(
    make_switcher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class Flighty(Alternate):
        reads = 0

        @property
        def interval_s(self) -> float:
            self.reads += 1
            if self.reads == 3:
                raise ZeroDivisionError("of an interval")
            return 0.01

    policy = Flighty()
    make_switcher(policy=policy)
    give_up_s = time.monotonic() + 30
    while policy.reads < 5 and time.monotonic() < give_up_s:
        time.sleep(0.01)
    assert policy.reads >= 5
    assert "ZeroDivisionError: of an interval" in caplog.text


def test_policies_hear_of_requests_alone(make_switcher: Make, images: np.ndarray) -> None:
    class Idle(Alternate):
        interval_s = 60.0

    policy = Idle()
    model = make_switcher(policy=policy)
    binding = model.io_binding()
    binding.bind_cpu_input("input", images)
    binding.bind_output("logits")
    for _ in range(5):
        model.run_with_iobinding(binding)
        model.get_providers()
        model.get_modelmeta()
        assert model.session is not None
    assert model._meter is not None
    assert sum(load.completed for load in policy.seen) + model._meter.read()[1] == 5


def test_a_policy_that_fails_is_logged_and_asked_again(make_switcher: Make, caplog: pytest.LogCaptureFixture) -> None:
    policy = Fails()
    make_switcher(policy=policy)
    assert policy.again.wait(30)
    assert "the policy failed, the active variant stays" in caplog.text


def test_a_replay_without_its_policy_is_refused(
    portfolio: Portfolio, options: ort.SessionOptions, tmp_path: Path
) -> None:
    def serve(**given: Any) -> Timeline:
        trace = Trace("short", 0.2, (50.0,), relative=False)
        cpu = ["CPUExecutionProvider"]
        return replay(portfolio, trace, sess_options=options, providers=cpu, cache=tmp_path, **given)

    with pytest.raises(SwitchError, match=r"the policy failed: ZeroDivisionError\('of a policy'\)"):
        serve(make_policy=lambda _: Fails())
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
        sess_options=options,
        providers=["CPUExecutionProvider"],
        cache=tmp_path_factory.mktemp("cache"),
        progress=moments.append,
    )
    assert {moment.run for moment in moments} == {"policy", "smallest", "largest"}
    return found


def test_a_replay_serves_every_request_three_times(timeline: Timeline) -> None:
    assert set(timeline.runs) == {"policy", "smallest", "largest", "clairvoyant"}
    counts = {timeline.summary(name)["requests"] for name in timeline.runs}
    assert len(counts) == 1 and 40 < counts.pop() < 140
    assert {timeline.summary(name)["failed"] for name in timeline.runs} == {0}
    assert set(timeline.runs["smallest"].variant) == {0} and set(timeline.runs["largest"].variant) == {2}
    assert timeline.runs["policy"].switches and timeline.accuracies is None
    assert all(np.all(run.latency_ms > 0) for run in timeline.runs.values())


def test_a_time_line_is_ready_for_json(timeline: Timeline) -> None:
    found = json.loads(json.dumps(timeline.to_dict(), allow_nan=False))
    assert found["variants"] == ["small", "medium", "large"]
    assert found["figures"]["accuracy_gain"] is None and found["figures"]["within_of_smallest"] > 0.5
    intervals = found["runs"]["largest"]["intervals"]
    assert [row["seconds"] for row in intervals] == [0.0, 0.25, 0.5]
    assert {row["variant"] for row in intervals} == {"large"}
    assert sum(row["requests_per_second"] for row in intervals) * 0.25 == found["runs"]["largest"]["requests"]
