"""A few threads that answer requests, and the bounded queue before them; quick requests need no thread."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from onnx_shift.serving.errors import RequestError

_QUICK_S, _LOOKED_AT = 1e-3, 4  # one quick answer of so many: on a busy machine any may have had to wait

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class _Job(NamedTuple):
    asked: Any
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    came_s: float


class Pool(Generic[Asked, Answered]):
    """Answers what event loops ask, on `threads` threads; at most `queue` wait, others are refused with 429.

    With `batch_s` above 0 a thread that takes a request waits so long for others, at most `batch` in all, and gives
    them to `answer` together. `answer` returns one result or exception for each. `waited` hears how many seconds each
    request waited.

    Handing a request to a thread and its answer back takes up to a quarter of a millisecond, half of it of the
    processor. So where there is one thread, no batching, and answers take less than a millisecond, requests that
    are `light` are answered on the event loop itself: one at a time, and between two of them it hears what else
    comes, so that those that wait are counted as ever.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answered | Exception]],
        *,
        threads: int,
        queue: int,
        batch: int = 1,
        batch_s: float = 0.0,
        waited: Callable[[float], object] = lambda seconds: None,
        light: Callable[[Asked], bool] = lambda asked: False,
    ) -> None:
        self._answer = answer
        self._queue_limit = queue
        self._batch, self._batch_s = batch, batch_s
        self._waited = waited
        self._light = light
        self._may_stay = threads == 1 and batch_s == 0
        self._took_s = deque([math.inf], _LOOKED_AT)
        self._working = False  # a thread is
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._here: deque[_Job] = deque()  # to be answered on the event loop
        self._threads = [
            threading.Thread(target=self._work, name=f"onnx-shift-serving-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def waiting(self) -> int:
        """Return how many requests wait."""
        return self._jobs.qsize() + len(self._here)

    async def ask(self, asked: Asked, limit_s: float) -> Answered:
        """Return the answer. Raises RequestError, 429 where the queue is full and 503 after `limit_s`."""
        if self.waiting() >= self._queue_limit:
            raise RequestError(429, f"{self._queue_limit} requests wait already; try again later")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        timer = loop.call_later(limit_s, _expire, future, limit_s)
        job = _Job(asked, future, loop, time.perf_counter())
        if self._stays(asked):
            self._here.append(job)
            if len(self._here) == 1:
                loop.call_soon(self._answer_here)
        else:
            self._jobs.put(job)
        try:
            return await future
        finally:
            timer.cancel()
            if future.cancelled():
                with suppress(ValueError):
                    self._here.remove(job)

    def close(self, limit_s: float) -> bool:
        """Refuse those that wait with 503, end the threads after what they are at, and return whether they did end
        within `limit_s`.
        """
        left = list(self._here)
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                left.append(job)
        for job in left:
            job.loop.call_soon_threadsafe(_settle, job.future, RequestError(503, "the server is stopping"))
        for _ in self._threads:
            self._jobs.put(None)
        until_s = time.perf_counter() + limit_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.perf_counter()))
        return not any(thread.is_alive() for thread in self._threads)

    def _stays(self, asked: Asked) -> bool:
        """Whether the event loop is to answer, beside which no thread is then at work."""
        idle = not self._working and self._jobs.empty()
        return self._may_stay and idle and min(self._took_s) < _QUICK_S and self._light(asked)

    def _answer_here(self) -> None:
        if not self._here:  # given up
            return
        job = self._here.popleft()
        if not job.future.done():
            _settle(job.future, self._results([job])[0])
        if self._here:
            job.loop.call_soon(self._answer_here)

    def _work(self) -> None:
        while True:
            jobs, ended = self._take()
            if jobs:
                self._working = True
                for job, result in zip(jobs, self._results(jobs), strict=True):
                    job.loop.call_soon_threadsafe(_settle, job.future, result)
                del jobs, job, result
                self._working = False
            if ended:
                return

    def _take(self) -> tuple[list[_Job], bool]:
        """Return the requests to answer next, none that nobody waits for any more, and whether the pool was closed."""
        job = self._jobs.get()
        jobs: list[_Job] = []
        until_s = time.perf_counter() + self._batch_s
        while job is not None:
            if not job.future.done():
                jobs.append(job)
            left_s = until_s - time.perf_counter()
            if left_s <= 0 or len(jobs) >= self._batch:
                return jobs, False
            try:
                job = self._jobs.get(timeout=left_s)
            except Empty:
                return jobs, False
        return jobs, True

    def _results(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        """Return a result or an exception for each."""
        began_s = time.perf_counter()
        for job in jobs:
            self._waited(began_s - job.came_s)
        try:
            return self._answer([job.asked for job in jobs])
        except Exception as error:  # noqa: BLE001 - the thread must live, and somebody waits for an answer
            return [error] * len(jobs)
        finally:
            self._took_s.append(time.perf_counter() - began_s)


def _settle(future: "asyncio.Future[Any]", result: object) -> None:
    if future.done():  # given up meanwhile
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _expire(future: "asyncio.Future[Any]", limit_s: float) -> None:
    if not future.done():
        future.set_exception(RequestError(503, f"not answered within {limit_s:g} s"))
