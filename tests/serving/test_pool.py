"""The bounded pool: what waits, what is refused, and what shares a run."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from onnx_shift.serving.errors import RequestError
from onnx_shift.serving.pool import Pool
from onnx_shift.serving.service import Asked, Service
from onnx_shift.serving.settings import Limits
from tests.serving.conftest import question

Make = Callable[..., Service]


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


def test_requests_that_come_together_are_given_together() -> None:
    slow = Slow()
    slow.go_on.set()

    async def ask() -> None:
        pool: Pool[int, int] = Pool(slow, threads=1, queue=9, batch=3, batch_s=0.2)
        assert await asyncio.gather(*(pool.ask(number, 20) for number in (1, 2, 3))) == [2, 4, 6]
        pool.close(20)

    asyncio.run(ask())
    assert slow.took == [[1, 2, 3]]


def body(rows: np.ndarray, **changes: Any) -> Asked:
    return Asked(json.dumps(question(rows, **changes)).encode(), None, None)


def test_requests_of_a_batch_get_their_own_rows(
    make_service: Make, rows: np.ndarray, answers: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(limits=Limits(batch=3), batch_ms=1)
    ran: list[int] = []
    run = service.switcher.run_named

    def spy(outputs: Any, feed: Any) -> Any:
        ran.append(len(feed["input"]))
        return run(outputs, feed)

    monkeypatch.setattr(service.switcher, "run_named", spy)
    bad = body(rows, datatype="INT8")
    results = service.answer([body(rows[:1]), bad, body(rows), body(rows[1:])])
    assert ran == [3, 1] and isinstance(results[1], RequestError)
    for result, wanted in zip(results[:1] + results[2:], (slice(0, 1), slice(0, 2), slice(1, 2)), strict=True):
        output = json.loads(result.body)["outputs"][0]
        found = np.array(output["data"], np.float32).reshape(output["shape"])
        np.testing.assert_allclose(found, answers["medium"][wanted], rtol=1e-5)
