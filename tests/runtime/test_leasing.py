"""Leases: who is inside, who releases, what those that wait are told."""

import threading
from types import SimpleNamespace

import pytest

from onnx_shift.runtime.choice import Choice
from onnx_shift.runtime.errors import ClosedError, RunError, SwitchError
from onnx_shift.runtime.leasing import Leases, Serving


def choice(name: str) -> Choice:
    return Choice(SimpleNamespace(name=name), None)


@pytest.fixture
def leases() -> Leases:
    made = Leases(choice("first"))
    made.publish(Serving(choice("first"), "session"))
    return made


def test_the_last_to_leave_a_retired_session_releases_it(leases: Leases) -> None:
    with leases.lease() as outer, leases.lease() as inner:
        leases.publish(Serving(choice("second"), "another"))
        assert outer is inner and outer.session == "session" and leases.choice.variant.name == "second"
        assert leases.running() == 2
    assert outer.session is None and leases.serving.session == "another"
    assert leases.counts.requests == 2 and leases.running() == 0


def test_what_is_no_request_is_not_counted(leases: Leases) -> None:
    with leases.lease(request=False):
        assert leases.running() == 1
    assert leases.counts.requests == 0


def test_a_refusal_names_the_variant_and_counts_as_failed(leases: Leases) -> None:
    with pytest.raises(RunError, match="first: too\nlong".replace("\n", " ")), leases.lease():
        raise RuntimeError("too\nlong")
    assert leases.counts.failed_requests == 1


def test_those_that_wait_are_told_of_a_failure_and_go_on_after_the_next(leases: Leases) -> None:
    leases.retire(wait=True)
    told: list[str] = []

    def ask() -> None:
        try:
            with leases.lease():
                told.append("served")
        except SwitchError as error:
            told.append(str(error))

    waiting = threading.Thread(target=ask)
    waiting.start()
    leases.fail(SwitchError("broken"))
    waiting.join(20)
    leases.publish(Serving(choice("second"), "another"))
    ask()
    assert told == ["broken", "served"]


def test_after_closing_nothing_is_lent_or_published(leases: Leases) -> None:
    with leases.lease() as serving:
        leases.close()
        assert serving.session == "session"
    assert serving.session is None
    with pytest.raises(ClosedError, match="the switcher is closed"), leases.lease():
        pass
    with pytest.raises(ClosedError, match="closed meanwhile"):
        leases.publish(serving)
