"""Which session answers: requests lease it, an exchange lets another one answer, and the last to leave releases it."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnxruntime as ort

from onnx_shift.errors import one_line
from onnx_shift.ort import RUN_ERRORS
from onnx_shift.runtime.choice import Choice
from onnx_shift.runtime.errors import ClosedError, RunError, SwitchError
from onnx_shift.runtime.record import Counts

if TYPE_CHECKING:
    from onnx_shift.runtime.meter import Meter

_LOOK_S = 0.05


class Serving:
    """A session that answers requests, the threads of those inside it, and which threads asked it anything."""

    def __init__(self, choice: Choice, session: ort.InferenceSession) -> None:
        self.choice = choice
        self.session = session
        self.inside: dict[object, int] = {}
        self.callers: set[int] = set()
        self.retired = False


class Leases:
    """Lends the session that serves to requests, from many threads, and knows when nobody holds one any more.

    `choice` is what serves, or served last: `first` until a session is published. `lock` guards it and `counts`. A
    `meter` hears of every request.
    """

    def __init__(self, first: Choice, clock: Callable[[], float] = time.perf_counter) -> None:
        self.choice = first
        self.serving: Serving | None = None
        self.failure: SwitchError | None = None
        self.closed = False
        self.counts = Counts()
        self.meter: Meter | None = None
        # Entered as the lock itself: an interruption inside Condition.__enter__, which is no one step as a lock's is,
        # would leave it locked.
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._servings: weakref.WeakSet[Serving] = weakref.WeakSet()  # also those that only finish their requests
        self._clock = clock
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is the process that made it: a forked child has not the threads that hold its locks."""
        return os.getpid() == self._pid

    def check_process(self) -> None:
        """Raise ClosedError in a forked child."""
        if not self.here:
            raise ClosedError("the switcher belongs to the process that made it: make another in a forked child")

    def check_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self.closed:
            raise ClosedError("the switcher is closed")

    def running(self) -> int:
        """Return how many requests are inside. Whoever asks holds the lock."""
        return sum(len(serving.inside) for serving in self._servings)

    @contextmanager
    def lease(self, *, request: bool = True) -> Iterator[Serving]:
        """Yield what serves, its session kept until the block ends; onnxruntime's refusals become RunError.

        Policies hear of it where it is a `request`. An interruption may come between any two calls: what is entered
        here leaves by the first step of a `finally`, which is one call into C.
        """
        self.check_process()
        token, thread = object(), threading.get_ident()
        serving, meter = None, self.meter if request else None
        began, failed = self._clock(), True
        try:
            if meter is not None:
                meter.begin(token)
            with self.lock:
                while self.serving is None:
                    self.check_open()
                    if self.failure is not None:
                        raise SwitchError(str(self.failure)) from self.failure
                    self._changed.wait()
                serving = self.serving
                serving.inside[token] = thread
                serving.callers.add(thread)
            yield serving
            failed = False
        except RUN_ERRORS as error:
            raise RunError(f"{serving.choice.variant.name if serving else ''}: {one_line(error)}") from error
        finally:
            if serving is not None:
                serving.inside.pop(token, None)
                self._left(serving, self._clock() - began if request else None, failed)
            if meter is not None:
                meter.end(token)

    def _left(self, serving: Serving, took_s: float | None, failed: bool) -> None:
        """Count a request, which took so long, and release a retired session that nobody is inside any more."""
        with self.lock:
            if took_s is not None:
                self.counts.requests += 1
                self.counts.failed_requests += failed
                self.counts.request_ms += took_s * 1e3
            idle = serving.retired and not serving.inside
            if idle:
                self._changed.notify_all()
        if idle:
            serving.session = None

    def publish(self, serving: Serving) -> float:
        """Let `serving` answer from now on, and release what did before as soon as nobody is inside; return when.

        Raises ClosedError after `close`.
        """
        with self.lock:
            if self.closed:
                raise ClosedError("the switcher was closed meanwhile")
            old, self.serving, self.choice, self.failure = self.serving, serving, serving.choice, None
            idle = _retired_idle(old)
            self._servings.add(serving)
            self._changed.notify_all()
        exchanged = self._clock()
        if idle is not None:
            idle.session = None
        return exchanged

    def retire(self, *, wait: bool) -> None:
        """Let nobody begin on the serving session any more, and release it when (`wait`: until) nobody is inside."""
        with self.lock:
            old, self.serving = self.serving, None
            idle = _retired_idle(old)
            while wait and old is not None and old.inside:
                self._changed.wait(_LOOK_S)  # who is interrupted while leaving may not say so
        if idle is not None:
            idle.session = None

    def fail(self, failure: SwitchError) -> None:
        """Tell those that wait, and whoever comes until the next `publish`, that nothing serves."""
        with self.lock:
            self.failure = failure
            self._changed.notify_all()

    def close(self) -> None:
        """Lend nothing any more; the session goes when the last request inside is done."""
        with self.lock:
            self.closed = True
            self._changed.notify_all()
        self.retire(wait=False)


def _retired_idle(serving: Serving | None) -> Serving | None:
    """Mark `serving` as retired; return it if nobody is inside. Otherwise the last to leave releases it."""
    if serving is None:
        return None
    serving.retired = True
    return None if serving.inside else serving
