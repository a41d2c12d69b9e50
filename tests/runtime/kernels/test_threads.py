"""Several threads in one session, several sessions of one model, and sessions that end while others run."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.runtime.kernels.networks import random_network, rewritten, session

SEED = 5


def test_many_threads_in_one_session_answer_as_one_does() -> None:
    model, feeds = random_network(SEED)
    ours = session(rewritten(model), threads=2)
    inputs = [np.random.default_rng(k).standard_normal(feeds["x"].shape).astype(np.float32) for k in range(8)]
    alone = [ours.run(None, {"x": x})[0] for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            together = list(pool.map(lambda x: ours.run(None, {"x": x})[0], inputs))
            assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_sessions_end_while_others_run() -> None:
    model, feeds = random_network(SEED)
    ours = rewritten(model)
    expected = session(ours).run(None, feeds)[0]
    stop, wrong = threading.Event(), []

    def answer() -> None:
        mine = session(ours)
        while not stop.is_set():
            wrong.extend([1] * (not np.array_equal(mine.run(None, feeds)[0], expected)))

    threads = [threading.Thread(target=answer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert np.array_equal(session(ours).run(None, feeds)[0], expected)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
