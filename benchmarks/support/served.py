"""Servers in processes of their own, and connections that ask them; as a module it is the echo to compare with."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "served"
_INFER = f"/v2/models/{NAME}/infer"


@dataclass
class Server:
    """A server in a process of its own."""

    process: "subprocess.Popen[str]"
    port: int

    def processor_s(self) -> float:
        """Return the processor seconds that the server's threads have used."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")  # in ns, where `stat` counts 10 ms
        return sum(int(path.read_text().split()[0]) for path in threads) / 1e9

    def ask(self, method: str, path: str) -> bytes:
        """Return the body of an answer. Raises RuntimeError for any status but 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {text!r}")
        return text

    def metric(self, name: str) -> float:
        """Return the sum of the metrics whose line begins with `name`."""
        lines = self.ask("GET", "/metrics").decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextmanager
def _running(work: Path, *arguments: str) -> Iterator[Server]:
    environment = {**os.environ, "ONNX_SHIFT_CACHE": str(work / "cache"), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline().strip().rpartition(":")[2]))
    finally:
        process.terminate()
        process.communicate()


def served(work: Path, portfolio: Path, *options: str) -> AbstractContextManager[Server]:
    """Run `onnx-shift serve` over the portfolio, with `options`, in a process of its own."""
    arguments = ("onnx_shift", "serve", str(portfolio), "--name", NAME, "--port", "0")
    return _running(work, *arguments, "--no-access-log", *options)


def echoing(work: Path) -> AbstractContextManager[Server]:
    """Run the echo: uvicorn alone, which answers with what it was sent."""
    return _running(work, "benchmarks.support.served")


@dataclass
class Caller:
    """One connection that sends the same question again and again."""

    port: int
    rows: Any
    data: bytes = field(init=False)

    def __post_init__(self) -> None:
        parameters = {"binary_data_size": self.rows.nbytes}
        entry = {"name": "input", "shape": self.rows.shape, "datatype": "FP32", "parameters": parameters}
        message = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
        body = message + self.rows.tobytes()
        head = f"POST {_INFER} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n"
        self.data = f"{head}Inference-Header-Content-Length: {len(message)}\r\n\r\n".encode() + body
        self.connection = socket.create_connection(("127.0.0.1", self.port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> tuple[bytes, bytes]:
        """Return the headers and the body of the answer."""
        self.connection.sendall(self.data)
        text = b""
        while b"\r\n\r\n" not in text:
            text += self._more()
        head, _, body = text.partition(b"\r\n\r\n")
        wanted = int(header(head, b"content-length"))
        while len(body) < wanted:
            body += self._more()
        return head, body

    def _more(self) -> bytes:
        part = self.connection.recv(1 << 16)
        if not part:
            raise ConnectionError("the server closed")
        return part


def header(head: bytes, name: bytes) -> bytes:
    """Return what the header of this name, in small letters, holds."""
    return next(line.partition(b": ")[2] for line in head.lower().split(b"\r\n") if line.startswith(name + b":"))


def together(works: list[Callable[[], None]]) -> None:
    """Do all of them at the same time, each on a thread of its own."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _echo() -> None:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # Without IPPROTO_TCP asyncio leaves out TCP_NODELAY.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # before anybody is told the port
    sys.stdout.write(f":{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app, loop="asyncio", http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _echo()
