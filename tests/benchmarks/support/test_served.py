"""Servers in processes of their own, and connections that ask them."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from benchmarks.support.served import Caller, echoing, header


def test_the_echo_answers_with_what_it_was_sent(tmp_path: Path) -> None:
    with echoing(tmp_path) as server:
        caller = Caller(server.port, np.arange(6, dtype=np.float32).reshape(1, 6))
        for _ in range(2):
            head, body = caller.ask()
            assert head.startswith(b"HTTP/1.1 200") and body == caller.data.partition(b"\r\n\r\n")[2]
        assert header(head, b"content-length") == b"%d" % len(body)
        assert server.processor_s() > 0
        caller.connection.close()
