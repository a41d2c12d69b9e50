"""The thread that asks a policy, and what it does when one fails."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import Portfolio, SwitchError
from onnx_shift.runtime.load import Load
from tests.runtime.conftest import Alternate, Fails, Make


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


def test_a_variant_that_an_update_took_away_meanwhile_is_no_failure(
    model_paths: dict[str, Path], tmp_path: Path, make_switcher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Event()

    class Late:
        interval_s = 0.01

        def decide(self, load: Load) -> str | None:
            if asked.is_set():
                return None
            model.update(tmp_path / "one.zip")
            asked.set()
            return "large"

    pack([model_paths["small"]], tmp_path / "one.zip")
    model = make_switcher(policy=Late())
    assert asked.wait(30)
    model.close()
    assert model.active.name == "small" and "no variant" not in caplog.text


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


def test_a_policy_that_fails_is_logged_and_asked_again(make_switcher: Make, caplog: pytest.LogCaptureFixture) -> None:
    policy = Fails()
    make_switcher(policy=policy)
    assert policy.again.wait(30)
    assert "the policy failed, the active variant stays" in caplog.text
