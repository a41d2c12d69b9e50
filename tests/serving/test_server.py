"""A server in a process of its own: over a socket, by its own client, through signals."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from onnx_shift.serving.server import _Joining
from tests.serving.conftest import (
    NAME,
    WIDTHS,
    Server,
    ask_over,
    asking,
    question,
    serving,
    wait_until,
    write_portfolio,
)  # fmt: skip

INFER = f"/v2/models/{NAME}/infer"


LIMITS = ("--max-body", "5000", "--max-batch", "4", "--body-timeout", "0.3", "--allow-load", "--no-access-log")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave its portfolio alone."""
    path = tmp_path_factory.mktemp("served") / f"{NAME}.zip"
    write_portfolio(path)
    with serving(str(path), *LIMITS) as running:
        yield running


@pytest.fixture
def own_server(portfolio_path: Path) -> Iterator[Server]:
    with serving(str(portfolio_path), *LIMITS) as running:
        yield running


def raw(server: Server, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def head(*lines: str, path: str = INFER) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", "Connection: close", *lines, "", ""]).encode()


def test_nvidias_client_is_content(server: Server, rows: np.ndarray, answers: dict[str, np.ndarray]) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    try:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(NAME)
        assert client.get_server_metadata()["name"] == "onnx-shift"
        assert client.get_model_metadata(NAME)["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 6]}]
        for binary in (True, False):
            given = triton.InferInput("input", list(rows.shape), "FP32")
            given.set_data_from_numpy(rows, binary_data=binary)
            wanted = triton.InferRequestedOutput("logits", binary_data=binary)
            result = client.infer(NAME, [given], outputs=[wanted], request_id="seven")
            np.testing.assert_allclose(result.as_numpy("logits"), answers["medium"], rtol=1e-5)
            assert result.get_response()["id"] == "seven"
            for name in WIDTHS:
                result = client.infer(NAME, [given], model_version=name)
                np.testing.assert_allclose(result.as_numpy("logits"), answers[name], rtol=1e-5)
        with pytest.raises(triton.InferenceServerException, match="there is no model"):
            client.infer("other", [given])
        client.load_model(NAME)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (head("Content-Length: x"), 400),
        (head("Content-Length: -5"), 400),
        (head("Content-Length: 2", "Content-Length: 3") + b"{}", 400),
        (head("Content-Length: 2") + b"{}", 400),
        (head("Content-Length: 2", "Inference-Header-Content-Length: 3") + b"{}", 400),
        (head("Content-Length: 6000") + bytes(6000), 413),
        (head("Transfer-Encoding: chunked") + b"1770\r\n" + bytes(6000) + b"\r\n0\r\n\r\n", 413),
        (head("Transfer-Encoding: chunked") + b"z\r\n", 400),
        (head("Content-Length: 2", path=f"{INFER}/more") + b"{}", 404),
        (head("Content-Length: 2", path="/metrics") + b"{}", 405),
        (head("X: " + "y" * 100_000), 400),
        (head("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    ],
)
def test_bad_bytes_get_an_error_in_json(server: Server, sent: bytes, status: int) -> None:
    found = raw(server, sent)
    assert found.startswith(f"HTTP/1.1 {status} ".encode()), found
    assert isinstance(json.loads(found.partition(b"\r\n\r\n")[2])["error"], str)


@pytest.mark.parametrize("begun", [head()[:-2], head("Transfer-Encoding: chunked") + b"0\r\n"])
def test_headers_that_never_end_are_refused_as_they_come(server: Server, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(begun + b"X: y")
        time.sleep(0.05)
        connection.sendall(b"y" * 70_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_requests_sent_at_once_are_answered_in_turn(server: Server, rows: np.ndarray) -> None:
    body = json.dumps(question(rows)).encode()
    first = f"POST {INFER} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    found = raw(server, first + b"GET /v2 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    assert found.count(b"HTTP/1.1 200 OK") == 2 and found.index(b"model_version") < found.index(b"extensions")


def test_an_offer_of_another_protocol_is_answered_in_this_one(server: Server, rows: np.ndarray) -> None:
    body = json.dumps(question(rows)).encode()
    offer = f"POST {INFER} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {len(body)}"
    request = f"{offer}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for cut in (20, len(offer) + 3, len(offer) + 4, len(request)):
            connection.sendall(request[:cut])
            time.sleep(0.05)
            connection.sendall(request[cut:])
            found = connection.recv(65536)
            assert found.startswith(b"HTTP/1.1 200 ") and b"connection: " not in found
    assert raw(server, b"CONNECT here:80 HTTP/1.1\r\nHost: here\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_head_is_answered_without_a_body(server: Server) -> None:
    found = raw(server, b"HEAD /v2 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 ") and found.endswith(b"\r\n\r\n") and b"content-length: " in found


def test_an_answer_leaves_in_one_piece() -> None:
    transport = Mock()
    joining = _Joining(transport)
    for data in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"body", b"more"):
        joining.write(data)
    assert [call.args[0][-4:] for call in transport.write.call_args_list] == [b"\r\n\r\n", b"body", b"more"]


def test_a_body_that_stalls_is_408_and_one_that_is_left_alone_is_nothing(server: Server) -> None:
    found = raw(server, head("Content-Length: 100") + b"{")
    assert found.startswith(b"HTTP/1.1 408 ") and b"stalled after 1 bytes" in found
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head("Content-Length: 100") + b"{")
    assert server.ask("GET", "/v2/health/ready").status == 200


def test_a_body_too_big_is_refused_before_it_is_sent(server: Server) -> None:
    found = raw(server, head("Content-Length: 6000", "Expect: 100-continue"))
    assert found.startswith(b"HTTP/1.1 413 ")


def test_sighup_takes_the_new_file_and_refuses_a_bad_one(
    own_server: Server, portfolio_path: Path, rows: np.ndarray
) -> None:
    def metric(name: str) -> str:
        lines = own_server.ask("GET", "/metrics").body.decode().splitlines()
        return next(line.rpartition(" ")[2] for line in lines if line.startswith(name))

    write_portfolio(portfolio_path, {"only": 5})
    own_server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: metric('onnx_shift_loads_total{result="taken"}') == "1.0")
    assert own_server.ask("POST", INFER, json.dumps(question(rows)).encode()).variant == "only"
    portfolio_path.write_bytes(b"nothing")
    own_server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: metric('onnx_shift_loads_total{result="refused"}') == "1.0")
    assert own_server.ask("POST", INFER, json.dumps(question(rows)).encode()).variant == "only"


class Callers:
    """Connections that ask one after the other, note when each request was sent and what came, and check the answer."""

    def __init__(self, server: Server, rows: np.ndarray, wanted: dict[str, np.ndarray]) -> None:
        self.sent_s: list[float] = []
        self.outcomes: list[tuple[float, int]] = []  # when sent, status (0: refused or cut off)
        self.wrong: list[str] = []
        self._server, self._wanted = server, wanted
        self._body = json.dumps(question(rows)).encode()

    def are_warm(self) -> bool:
        return len(self.outcomes) > 100

    def ask(self, stop: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=20)
        while not stop.is_set():
            sent_s = time.monotonic()
            try:
                reply = ask_over(connection, "POST", INFER, self._body)
            except (OSError, http.client.HTTPException):
                connection.close()
                self.outcomes.append((sent_s, 0))
                time.sleep(0.005)
                continue
            self.outcomes.append((sent_s, reply.status))
            if reply.status == 200:
                found = np.array(reply.json["outputs"][0]["data"], np.float32)
                if not np.allclose(found, self._wanted[reply.variant].ravel(), rtol=1e-4):
                    self.wrong.append(reply.variant)
        connection.close()


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_no_request_sent_before_sigterm_is_lost(
    portfolio_path: Path, rows: np.ndarray, answers: dict[str, np.ndarray], rounds: int
) -> None:
    for _ in range(rounds):
        with serving(str(portfolio_path), "--no-access-log") as server:
            callers = Callers(server, rows, answers)
            with asking(callers.ask):
                wait_until(callers.are_warm)
                told_s = time.monotonic()
                assert server.stop() == 0
        before = [status for sent_s, status in callers.outcomes if sent_s < told_s]
        after = [status for sent_s, status in callers.outcomes if sent_s >= told_s]
        assert set(before) == {200} and set(after) <= {200, 503, 0} and callers.wrong == []


def test_draining_is_not_ready_closes_politely_and_ends(portfolio_path: Path, rows: np.ndarray) -> None:
    body = json.dumps(question(rows)).encode()
    with serving(str(portfolio_path), "--linger", "2") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        assert "connection" not in ask_over(connection, "POST", INFER, body).headers
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("GET", "/v2/health/ready").status == 503)
        late = ask_over(connection, "POST", INFER, body)
        assert late.status == 200 and late.headers["connection"] == "close"
        assert server.process.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/v2/health/live")


@pytest.mark.parametrize("updates", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_no_answer_is_lost_or_wrong_under_updates(
    own_server: Server, portfolio_path: Path, rows: np.ndarray, answers: dict[str, np.ndarray], updates: int
) -> None:
    wanted = {**answers, **{f"{name}-new": value for name, value in answers.items()}}
    callers = Callers(own_server, rows, wanted)
    with asking(callers.ask):
        for number in range(updates):
            suffix = "" if number % 2 else "-new"
            write_portfolio(portfolio_path, {f"{name}{suffix}": width for name, width in WIDTHS.items()})
            assert own_server.ask("POST", f"/v2/repository/models/{NAME}/load").status == 200
        wait_until(callers.are_warm)
    assert {status for _, status in callers.outcomes} == {200} and callers.wrong == []


def test_the_access_log_is_one_line_of_json_per_request(portfolio_path: Path, rows: np.ndarray) -> None:
    with serving(str(portfolio_path)) as server:
        server.ask("POST", INFER, json.dumps(question(rows)).encode())
        server.ask("GET", "/nowhere")
        server.stop()
        assert server.process.stderr is not None
        lines = [json.loads(line) for line in server.process.stderr.read().splitlines()]
    assert [(line["method"], line["path"], line["status"], line["variant"]) for line in lines] == [
        ("POST", INFER, 200, "medium"),
        ("GET", "/nowhere", 404, None),
    ]


def test_an_address_in_use_and_a_missing_file_are_refused_in_one_line(portfolio_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ([str(portfolio_path), "--port", port], f"error: 127.0.0.1:{port}: cannot be listened on"),
            ([str(tmp_path / "none.zip"), "--port", "0"], f"error: {tmp_path / 'none.zip'}: cannot be read"),
            ([str(portfolio_path), "--port", "0", "--start", "tiny"], "error: no variant 'tiny'"),
        ):
            command = [sys.executable, "-m", "onnx_shift", "serve", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1 and done.stderr.startswith(message) and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_20_000_malformed_requests_get_answers_and_leave_no_memory(server: Server, rows: np.ndarray) -> None:
    random = np.random.default_rng(0)
    good = json.dumps(question(rows)).encode()
    statuses: set[int] = set()

    def spoilt() -> bytes:
        body = bytearray(good)
        for _ in range(random.integers(1, 5)):
            place = int(random.integers(len(body)))
            kind = random.integers(3)
            if kind == 0:
                body[place] = int(random.integers(256))
            elif kind == 1:
                del body[place : place + int(random.integers(1, 30))]
            else:
                body[place:place] = random.bytes(int(random.integers(1, 9)))
        return bytes(body)

    def resident() -> float:
        lines = server.ask("GET", "/metrics").body.decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("onnx_shift_resident_bytes")))

    def ask(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        for _ in range(count):
            headers = {"Inference-Header-Content-Length": str(random.integers(400))} if random.integers(2) else {}
            statuses.add(ask_over(connection, "POST", INFER, spoilt(), headers).status)
        connection.close()

    ask(2000)
    before = resident()
    ask(16_000)
    for _ in range(2000):  # what is no HTTP either
        whole = bytearray(head(f"Content-Length: {len(good)}") + good)
        whole[int(random.integers(len(whole) - len(good) - 4))] = int(random.integers(256))
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(whole)
            reply = connection.recv(65536)
            assert reply.startswith(b"HTTP/1.1 ") and reply[9:10] in b"24", (whole, reply)
    assert statuses <= {200, 400, 408, 413} and resident() < 1.05 * before
