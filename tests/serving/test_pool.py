"""The bounded pool: what waits, what is refused, and what is taken together."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence

import pytest

from onnx_shift.serving import pool as pool_module
from onnx_shift.serving.errors import RequestError
from onnx_shift.serving.pool import Pool


class Slow:
    """Answers a number with its double, but only when told to go on."""

    def __init__(self) -> None:
        self.go_on, self.took = threading.Event(), []

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.took.append(list(asked))
        assert self.go_on.wait(20)
        return [2 * number if number else ValueError("zero") for number in asked]


def test_a_full_queue_refuses_and_what_waits_is_counted() -> None:
    slow = Slow()

    async def ask() -> None:
        pool: Pool[int, int] = Pool(slow, threads=1, queue=2)
        tasks = [asyncio.create_task(pool.ask(1, 20))]
        while not slow.took:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(pool.ask(number, 20)) for number in (2, 0)]
        await asyncio.sleep(0)
        assert pool.waiting() == 2
        with pytest.raises(RequestError, match="2 requests wait already") as caught:
            await pool.ask(4, 20)
        assert caught.value.status == 429
        slow.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:2] == [2, 4] and str(results[2]) == "zero"
        assert pool.waiting() == 0 and pool.close(20)

    asyncio.run(ask())


def test_a_request_that_waits_too_long_is_refused_and_never_answered() -> None:
    slow = Slow()

    async def ask() -> None:
        pool: Pool[int, int] = Pool(slow, threads=1, queue=9)
        first = asyncio.create_task(pool.ask(1, 20))
        while not slow.took:
            await asyncio.sleep(0.001)
        with pytest.raises(RequestError, match="not answered within") as caught:
            await pool.ask(2, 0.01)
        assert caught.value.status == 503
        slow.go_on.set()
        assert await first == 2 and await pool.ask(3, 20) == 6
        assert pool.close(20) and slow.took == [[1], [3]]

    asyncio.run(ask())


def test_closing_refuses_those_that_wait_and_says_what_is_not_done() -> None:
    slow = Slow()

    async def ask() -> None:
        pool: Pool[int, int] = Pool(slow, threads=1, queue=9)
        tasks = [asyncio.create_task(pool.ask(number, 20)) for number in (1, 2)]
        while not slow.took:
            await asyncio.sleep(0.001)
        assert not await asyncio.to_thread(pool.close, 0.01)
        slow.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == 2 and isinstance(results[1], RequestError) and results[1].status == 503

    asyncio.run(ask())


class Threads:
    """Answers a number with itself, on whichever thread, after sleeping as many milliseconds."""

    def __init__(self) -> None:
        self.used: list[int] = []

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.used.append(threading.get_ident())
        time.sleep(asked[0] / 1e3)
        return list(asked)


@pytest.mark.parametrize(("threads", "light"), [(1, True), (1, False), (2, True)])
def test_light_requests_stay_on_the_loop_while_answers_are_quick(threads: int, light: bool) -> None:
    answer = Threads()

    async def ask() -> None:
        pool: Pool[int, int] = Pool(answer, threads=threads, queue=99, light=lambda number: light and number < 9)
        for _ in range(20):
            assert await pool.ask(0, 20) == 0
        assert (threading.get_ident() in answer.used) == (light and threads == 1)
        for number in (9, 9, 9, 9, 0):
            assert await pool.ask(number, 20) == number
        assert threading.get_ident() not in answer.used[-5:]  # long ones do not stay, nor those after them
        pool.close(20)

    asyncio.run(ask())


def test_those_that_wait_for_the_loop_are_counted_refused_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_QUICK_S", math.inf)
    waiting: list[int] = []

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        waiting.append(pool.waiting())
        return list(asked)

    async def ask() -> None:
        results = await asyncio.gather(*(pool.ask(1, 20) for _ in range(4)), return_exceptions=True)
        assert results[:3] == [1, 1, 1] and isinstance(results[3], RequestError) and results[3].status == 429
        assert waiting[-3:] == [2, 1, 0]
        tasks = [asyncio.create_task(pool.ask(2, 20)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel(), tasks[2].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, True]
        assert results[1] == 2 and pool.waiting() == 0
        asked = asyncio.gather(*(pool.ask(3, 20) for _ in range(3)), return_exceptions=True)
        await asyncio.sleep(0)
        pool.close(20)
        assert [getattr(result, "status", None) for result in await asked][1:] == [503, 503]

    pool: Pool[int, int] = Pool(answer, threads=1, queue=3, light=lambda number: True)
    asyncio.run(ask())


def test_requests_that_come_together_are_given_together() -> None:
    slow = Slow()
    slow.go_on.set()

    async def ask() -> None:
        pool: Pool[int, int] = Pool(slow, threads=1, queue=9, batch=3, batch_s=0.2)
        assert await asyncio.gather(*(pool.ask(number, 20) for number in (1, 2, 3))) == [2, 4, 6]
        pool.close(20)

    asyncio.run(ask())
    assert slow.took == [[1, 2, 3]]
