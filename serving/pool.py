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

_STOPPING = "the server is stopping"
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

    Handing a request to a thread and its answer back takes as long as a small network does. So where there is one
    thread, no batching, and answers take less than a millisecond, requests that are `light` are answered on the event
    loop itself, those first that it has read before; the others are counted as waiting, as ever.
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
        self._closed = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._here = 0  # wait for the event loop
        self._threads = [
            threading.Thread(target=self._work, name=f"onnx-shift-serving-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def waiting(self) -> int:
        """Return how many requests wait."""
        return self._jobs.qsize() + self._here

    async def ask(self, asked: Asked, limit_s: float) -> Answered:
        """Return the answer. Raises RequestError, 429 where the queue is full and 503 after `limit_s`."""
        if self.waiting() >= self._queue_limit:
            raise RequestError(429, f"{self._queue_limit} requests wait already; try again later")
        came_s = time.perf_counter()
        if self._stays(asked):
            return await self._ask_here(asked, limit_s, came_s)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        timer = loop.call_later(limit_s, _expire, future, limit_s)
        self._jobs.put(_Job(asked, future, loop, came_s))
        try:
            return await future
        finally:
            timer.cancel()

    async def _ask_here(self, asked: Asked, limit_s: float, came_s: float) -> Answered:
        """Answer on the event loop, once it has read what else has come, so that those that wait are counted."""
        self._here += 1
        try:
            await asyncio.sleep(0)
        finally:
            self._here -= 1
        if self._closed:
            raise RequestError(503, _STOPPING)
        if time.perf_counter() - came_s > limit_s:
            raise _late(limit_s)
        [result] = self._results([asked], [came_s])
        if isinstance(result, Exception):
            raise result
        return result

    def close(self, limit_s: float) -> bool:
        """Refuse those that wait with 503, end the threads after what they are at, and return whether they did end
        within `limit_s`.
        """
        self._closed = True
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job.loop.call_soon_threadsafe(_settle, job.future, RequestError(503, _STOPPING))
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

    def _work(self) -> None:
        while True:
            jobs, ended = self._take()
            if jobs:
                self._working = True
                results = self._results([job.asked for job in jobs], [job.came_s for job in jobs])
                for job, result in zip(jobs, results, strict=True):
                    job.loop.call_soon_threadsafe(_settle, job.future, result)
                del jobs, job, results, result
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

    def _results(self, asked: Sequence[Asked], came_s: Sequence[float]) -> Sequence[Answered | Exception]:
        """Return a result or an exception for each."""
        began_s = time.perf_counter()
        for each_s in came_s:
            self._waited(began_s - each_s)
        try:
            return self._answer(asked)
        except Exception as error:  # noqa: BLE001 - the thread must live, and somebody waits for an answer
            return [error] * len(asked)
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
        future.set_exception(_late(limit_s))


def _late(limit_s: float) -> RequestError:
    return RequestError(503, f"not answered within {limit_s:g} s")
