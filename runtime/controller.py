"""The thread that asks a policy and does as it says."""

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from onnx_shift.runtime.choice import Current
from onnx_shift.runtime.errors import ClosedError, SwitchError
from onnx_shift.runtime.load import Load, Policy
from onnx_shift.runtime.meter import Meter
from onnx_shift.runtime.portfolio import Variant

_FIRST_LOOK_S = 1.0
_log = logging.getLogger(__name__)


class Switchable(Protocol):
    """What a controller needs of a switcher."""

    @property
    def current(self) -> Current: ...

    def switch(self, target: str | Variant, *, by: str, why: str) -> object: ...


def check_policy(policy: Policy, waiting: Callable[[], int] | None = None) -> None:
    """Raise SwitchError for what is no policy, or no function that counts what waits."""
    if isinstance(policy, type):
        raise SwitchError(f"policy {policy.__name__}: is a class; give one of its objects, {policy.__name__}(…)")
    interval_s = getattr(policy, "interval_s", None)
    if not isinstance(interval_s, int | float) or not interval_s > 0 or not callable(getattr(policy, "decide", None)):
        raise SwitchError(
            f"policy {policy!r}: a policy has interval_s, seconds above 0, and decide(load); "
            f"here interval_s is {interval_s!r}"
        )
    if waiting is not None and not callable(waiting):
        raise SwitchError(f"waiting={waiting!r}: give a function that returns how many requests wait")


class Controller:
    """Asks `policy` at its interval, on a thread of its own, and switches as it answers; what fails is logged, once
    for as long as it keeps failing in the same way.
    """

    def __init__(
        self,
        switcher: Switchable,
        policy: Policy,
        meter: Meter,
        waiting: Callable[[], int] | None,
        clock: Callable[[], float],
    ) -> None:
        self._switcher = weakref.ref(switcher)  # whoever drops a switcher unclosed is rid of it all the same
        self._policy = policy
        self._meter = meter
        self._waiting = waiting or (lambda: 0)
        self._clock = clock
        self._looked_s = clock()
        self._were_waiting = self._looks = 0
        self._told = ""  # how it failed last
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="onnx-shift-policy", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread. A switch that it is at is finished first."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def look(self, switcher: Switchable) -> Load:
        """Return the load of `switcher` since the last look."""
        now, (portfolio, variant) = self._clock(), switcher.current
        seen = self._meter.read()
        waiting = seen.running + self._waiting()
        load = Load(
            time_s=now,
            interval_s=now - self._looked_s,
            arrived=max(0, seen.completed + waiting - self._were_waiting),
            completed=seen.completed,
            waiting=waiting,
            busy_s=seen.busy_s,
            latencies_ms=seen.latencies_ms,
            active=variant,
            variants=portfolio.variants,
            woken=seen.woken,
            woken_s=seen.woken_s,
        )
        self._looked_s, self._were_waiting = now, waiting
        return load

    def _loop(self) -> None:
        interval_s = self._policy.interval_s
        first_s = min(interval_s, _FIRST_LOOK_S)  # one that looks once a minute is not to wait for a minute
        while not self._stop.wait(first_s if self._looks == 0 else interval_s):
            self._looks += 1
            switcher = self._switcher()
            if switcher is None:
                return
            try:
                interval_s = self._policy.interval_s
                load = self.look(switcher)
                target = self._policy.decide(load)
                if target is not None:
                    self._switch(switcher, target, load)
                self._told = ""
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001  a policy is anybody's code, and its next look may go well
                self._tell(error)
            del switcher

    def _switch(self, switcher: Switchable, target: str | Variant, load: Load) -> None:
        try:
            switcher.switch(target, by="policy", why=f"{type(self._policy).__name__}: {load}")
        except SwitchError:
            if switcher.current.portfolio.variants is load.variants:
                raise
            # An update came between, and the new portfolio has no such variant: the next look is at its own.

    def _tell(self, error: Exception) -> None:
        told, self._told = self._told, f"{type(error).__name__} {error}"
        if told == self._told:
            return
        if isinstance(error, SwitchError):
            _log.warning("the policy's switch failed, the variant before still serves: %s", error)
        else:
            _log.error("the policy failed, the active variant stays", exc_info=error)
