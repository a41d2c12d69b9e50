"""A server in this process, or in one of its own, over a portfolio of three small models."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from onnx_shift.portfolio.pack import pack
from onnx_shift.serving.app import App
from onnx_shift.serving.service import Service
from onnx_shift.serving.settings import Limits, Settings

WIDTHS = {"small": 2, "medium": 4, "large": 8}
NAME = "digits"


def network(width: int, *, inputs: str = "input") -> onnx.ModelProto:
    """Return a dense layer, relu and another dense layer: six numbers in, three out, any batch."""
    random = np.random.default_rng(width)
    tensors = {
        "w1": random.standard_normal((6, width)).astype(np.float32),
        "w2": random.standard_normal((width, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", [inputs, "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(inputs, TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_portfolio(
    path: Path, widths: dict[str, int] = WIDTHS, *, inputs: str = "input", sign: bytes | None = None
) -> None:
    """Pack a portfolio of networks of these widths into `path`, signed by a key in PEM where one is given."""
    folder = path.with_suffix(".models")
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.onnx" for name in widths]
    for file, width in zip(files, widths.values(), strict=True):
        onnx.save(network(width, inputs=inputs), file)
    pack(files, path, sign=sign)


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((2, 6)).astype(np.float32)


@pytest.fixture(scope="session")
def answers(rows: np.ndarray) -> dict[str, np.ndarray]:
    """What a plain session answers to `rows`, by variant."""
    found = {}
    for name, width in WIDTHS.items():
        session = ort.InferenceSession(network(width).SerializeToString(), providers=["CPUExecutionProvider"])
        found[name] = session.run(None, {"input": rows})[0]
    return found


@pytest.fixture
def portfolio_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"{NAME}.zip"
    write_portfolio(path)
    return path


@pytest.fixture
def make_service(portfolio_path: Path) -> Iterator[Callable[..., Service]]:
    opened: list[Service] = []

    def make(policy: Any = None, limits: Limits | None = None, **settings: Any) -> Service:
        chosen = Settings(portfolio_path, NAME, limits=limits or Limits(), **settings)
        opened.append(Service(chosen, policy))
        return opened[-1]

    yield make
    for service in opened:
        service.close(5)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def variant(self) -> str:
        return self.headers["onnx-shift-variant"]


def question(rows: np.ndarray, **changes: Any) -> dict[str, Any]:
    """Return an inference request in JSON, with `changes` to its input."""
    entry = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist(), **changes}
    return {"inputs": [{key: value for key, value in entry.items() if value is not None}]}


def call(app: App, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
    """Ask the application without a socket, body and all at once."""
    import asyncio

    sent: list[Any] = []
    given = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "headers": given, "client": ("127.0.0.1", 1), "http_version": "1.1",
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


class Server(NamedTuple):
    process: "subprocess.Popen[str]"
    port: int

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        """Ask over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            return ask_over(connection, method, path, body, headers)
        finally:
            connection.close()

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def ask_over(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Reply:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Run the command `serve` in a process of its own, on a free port; kill it when the body ends."""
    command = [sys.executable, "-m", "onnx_shift", "serve", *arguments, "--port", "0"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Server(process, int(line.strip().rpartition(":")[2]))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def asking(ask: Callable[[threading.Event], None], count: int = 8) -> Iterator[None]:
    """Run `ask` on so many threads while the body runs, and set the event when it ends: then they are to return."""
    stop = threading.Event()
    threads = [threading.Thread(target=ask, args=(stop,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Return as soon as `holds()`; fail after `limit_s`."""
    until_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until_s, "it never came to hold"
        time.sleep(0.01)
