"""One box: uvicorn around the application, from the socket to the last answer."""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime.load import Policy
from onnx_shift.serving.access_log import AccessLog
from onnx_shift.serving.app import App
from onnx_shift.serving.codec import to_json
from onnx_shift.serving.service import Service
from onnx_shift.serving.settings import Settings

_LOOK_S = 0.02
_HEAD_S, _HEAD_BYTES = 10.0, 64 << 10
_LONG_HEAD = f"the headers are longer than {_HEAD_BYTES} bytes"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSED_S = 1.0
_KEEP_ALIVE_S = 75  # longer than proxies keep theirs
_log = logging.getLogger(__name__)


def serve(settings: Settings, policy: Policy | None, started: Callable[[str], object]) -> bool:
    """Serve until a signal says to stop; return whether all that were inside then were answered in time.

    `started` hears the address when requests are taken. SIGTERM and SIGINT drain, a second one ends at once; SIGHUP
    reads the portfolio file again. Raises OnnxShiftError where the portfolio or the address cannot be had.
    """
    listening = _listening(settings.host, settings.port)
    try:
        service = Service(settings, policy)
    except BaseException:
        listening.close()
        raise
    server = _Server(App(service, AccessLog() if settings.access_log else None), lambda: started(_url(listening)))
    server.run(sockets=[listening])
    return server.answered_all


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, on which nobody listens yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError) as error:
        raise OnnxShiftError(f"{host}:{port}: cannot be listened on ({error})") from error
    return found


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


class _Joining:
    """The transport of one answer: its head waits for its body, one packet and one call of the system less."""

    __slots__ = ("_head", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head is None and data != _CONTINUE:
            self._head = data
        elif self._head:
            self._head, data = b"", self._head + data
            self._transport.write(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with some things besides: what is no HTTP is answered in JSON, too; whoever begins a request must send
    all of its headers within ten seconds, and not more than `_HEAD_BYTES` of them.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _refused = False
    _data = b""  # what is being read
    _in_head = False
    _unread_bytes = 0  # came, and are part of nothing that is whole yet

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", msg)

    def _refuse(self, status: str, message: str) -> None:
        """Answer, and take in what else comes for a moment: a client that still sends would not hear it otherwise."""
        body = to_json({"error": message})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.write_eof()
        self._refused = True
        self._end_head()
        if self.cycle is not None:  # nothing of it can follow
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.loop.call_later(_REFUSED_S, self.transport.close)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unread_bytes += len(data)
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._refused:
            return
        if self._unread_bytes > _HEAD_BYTES:
            self.send_400_response(_LONG_HEAD)
        elif self._in_head and self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_S, self._refuse, "408 Request Timeout", "the headers stalled")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        if self._unread_bytes > _HEAD_BYTES and _size(self.headers) > _HEAD_BYTES:  # some may be the body's
            raise ValueError(_LONG_HEAD)
        self._unread_bytes = 0
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # of which no body comes
            self.cycle.transport = _Joining(self.transport)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Read the request again without its offer of another protocol, for which httptools leaves the body unread.

        Java's client offers HTTP/2 with the first request of every connection.
        """
        (read_bytes,) = sys.exc_info()[1].args  # type: ignore[union-attr]
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = HttpRequestParser(self)
        try:
            self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))
            self.parser.feed_data(self._data[read_bytes:])
        except (HttpParserError, HttpParserUpgrade):  # CONNECT has no other meaning
            self.send_400_response("Invalid HTTP request received.")

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = None


class _Server(uvicorn.Server):
    """uvicorn's, that drains when it is told to stop: not ready, still answering for a while, then finishing."""

    def __init__(self, app: App, started: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
            )
        )
        self.answered_all = True
        self._app = app
        self._started = started
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._update()))
        self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._app.draining.began or self._loop is None:
            self.should_exit = self.force_exit = True
        else:
            self._app.draining.began = True
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._drain()))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _update(self) -> None:
        try:
            sha256 = await asyncio.to_thread(self._app.service.update)
        except OnnxShiftError as error:
            _log.error("the new portfolio was refused, the old one still serves: %s", error)
        else:
            _log.warning("serving the portfolio of SHA-256 %s", sha256)

    async def _drain(self) -> None:
        """Answer on for `linger_s`, so that what was sent before the signal is read; then finish what is inside."""
        limits, draining = self._app.service.settings.limits, self._app.draining
        until_s = time.perf_counter() + limits.linger_s + limits.drain_s
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await asyncio.sleep(limits.linger_s)
        draining.closed = True
        while self._app.inside and time.perf_counter() < until_s and not self.force_exit:
            await asyncio.sleep(_LOOK_S)
        left_s = max(0.0, until_s - time.perf_counter())
        self.answered_all = await asyncio.to_thread(self._app.service.close, left_s) and not self._app.inside
        self.should_exit = True
