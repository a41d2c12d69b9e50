"""Counting requests as they go through a switcher."""

import threading
from collections import deque
from collections.abc import Callable

_MAX_LATENCIES = 10_000  # of one interval; beyond, the oldest are forgotten


class Meter:
    """Counts requests, their latencies and the time in which at least one is served. For many threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[object, float] = {}  # when each request that is inside came
        self._completed = 0
        self._busy_s = self._busy_since = 0.0
        self._latencies_ms: deque[float] = deque(maxlen=_MAX_LATENCIES)

    def begin(self, request: object) -> None:
        """Note that a request came."""
        with self._lock:
            now = self._clock()
            if not self._running:
                self._busy_since = now
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
            if not self._running:
                self._busy_s, self._busy_since = self._busy_s + now - self._busy_since, now

    def read(self) -> tuple[int, int, float, tuple[float, ...]]:
        """Return requests inside and, since the last reading, completed, busy seconds, latencies in ms."""
        with self._lock:
            if self._running:
                now = self._clock()
                self._busy_s += now - self._busy_since
                self._busy_since = now
            reading = len(self._running), self._completed, self._busy_s, tuple(self._latencies_ms)
            self._completed, self._busy_s = 0, 0.0
            self._latencies_ms.clear()
        return reading
