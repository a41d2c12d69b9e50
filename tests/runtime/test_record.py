import logging
from collections.abc import Callable

import pytest

from onnx_shift.runtime import ModelSwitcher, SwitchRecord
from onnx_shift.runtime.record import Counts

Make = Callable[..., ModelSwitcher]


def test_a_switch_is_logged_with_who_why_cost_and_time(make_switcher: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "onnx_shift")
    make_switcher().switch("large", why="a test")
    assert [record.name for record in caplog.records] == ["onnx_shift.runtime.record"]
    assert caplog.messages[0].startswith("medium -> large by call (a test): ready in ")
    assert "ms, callers waited " in caplog.messages[0] and caplog.messages[0].endswith("+00:00")


def test_counts_tell_switches_from_updates_and_sum_what_they_cost() -> None:
    counts = Counts()
    counts.add_switch(SwitchRecord("a", "b", inflate_ms=2.0, build_ms=1.0, prepare_ms=4.0, stall_ms=0.5, bytes=10))
    counts.add_switch(SwitchRecord("b", "b", build_ms=1.0, bytes=5, by="update"))
    found = counts.to_dict()
    assert (found["switches"], found["updates"]) == (1, 1)
    assert (found["switch_ms"], found["stall_ms"], found["inflated_bytes"]) == (8.0, 0.5, 15)


def test_an_update_changes_what_serves_also_under_the_same_name() -> None:
    assert SwitchRecord("a", "a", by="update").changed
    assert not SwitchRecord("a", "a").changed
