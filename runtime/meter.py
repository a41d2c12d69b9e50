"""Counting requests as they go through a switcher."""

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

_MAX_LATENCIES = 10_000  # of one interval; beyond, the oldest are forgotten
_PAUSE_S = 1e-3  # without a request for so long, threads and caches have gone to sleep


class Reading(NamedTuple):
    """Requests inside and, since the last reading, completed, seconds with one inside, and latencies; `woken` of
    those completed were the first after a pause, and took `woken_s`.
    """

    running: int
    completed: int
    busy_s: float
    woken: int
    woken_s: float
    latencies_ms: tuple[float, ...]


class Meter:
    """Counts requests, their latencies and the time in which at least one is served. For many threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[object, float] = {}  # when each request that is inside came
        self._completed = self._woken = 0
        self._busy_s = self._busy_since = self._woken_s = 0.0
        self._idle_since = float("-inf")
        # When work began after a pause, until its first request is answered.
        self._woke_s: float | None = None
        self._latencies_ms: deque[float] = deque(maxlen=_MAX_LATENCIES)

    def begin(self, request: object) -> None:
        """Note that a request came."""
        with self._lock:
            now = self._clock()
            if not self._running:
                self._busy_since = now
                if now - self._idle_since > _PAUSE_S:
                    self._woke_s = now
            self._running[request] = now

    def end(self, request: object) -> None:
        """Note that a request was answered, or failed; nothing where it never began."""
        began = self._running.pop(request, None)
        if began is None:
            return
        with self._lock:
            now = self._clock()
            self._completed += 1
            self._latencies_ms.append((now - began) * 1e3)
            if self._woke_s is not None:
                self._woken += 1
                self._woken_s += now - self._woke_s
                self._woke_s = None
            if not self._running:
                self._busy_s, self._busy_since = self._busy_s + now - self._busy_since, now
                self._idle_since = now

    def read(self) -> Reading:
        """Return what there is since the last reading."""
        with self._lock:
            if self._running:
                now = self._clock()
                self._busy_s += now - self._busy_since
                self._busy_since = now
            reading = Reading(
                len(self._running),
                self._completed,
                self._busy_s,
                self._woken,
                self._woken_s,
                tuple(self._latencies_ms),
            )
            self._completed, self._busy_s, self._woken, self._woken_s = 0, 0.0, 0, 0.0
            self._latencies_ms.clear()
        return reading
