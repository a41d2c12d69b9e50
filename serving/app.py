"""The routes of the Open Inference Protocol, of updates and of metrics, as an ASGI application."""

import asyncio
import logging
import sys
import time
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onnx_shift.errors import OnnxShiftError
from onnx_shift.serving.access_log import AccessLog
from onnx_shift.serving.codec import to_json
from onnx_shift.serving.errors import RequestError, shown
from onnx_shift.serving.service import Answered, Asked, Service
from onnx_shift.version import __version__

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

VARIANT_HEADER = "onnx-shift-variant"
_LENGTH_HEADER = b"inference-header-content-length"
_MAX_COMMAND_BYTES = 64 << 10
_DISCARD_S = 2.0
_DISCARDED_BYTES = 256 << 20
_log = logging.getLogger(__name__)


class Draining:
    """Whether the server is asked to stop: then it is not ready, and from `closed` on takes no more requests."""

    def __init__(self) -> None:
        self.began = False
        self.closed = False


class App:
    """The application over a service. `inside` counts the inference requests that came and are not answered yet."""

    def __init__(self, service: Service, log: AccessLog | None = None) -> None:
        self.service = service
        self.draining = Draining()
        self.inside = 0
        self._log = log
        self._infer_path = f"/v2/models/{service.settings.name}/infer"
        model = "/v2/models/{model}"
        version = model + "/versions/{variant}"
        self._routes = Starlette(
            routes=[
                *(Route(f"{path}/infer", _Raw(self._infer), methods=["POST"]) for path in (model, version)),
                Route("/v2", self._server),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
                *(Route(path, self._model) for path in (model, version)),
                *(Route(f"{path}/ready", self._model_ready) for path in (model, version)),
                *(
                    [Route("/v2/repository/models/{model}/load", self._load, methods=["POST"])]
                    if service.settings.allow_load
                    else []
                ),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={
                HTTPException: _http_error,
                OnnxShiftError: _refused,
            },
        )
        self._routes.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and log it."""
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = self._routes
        if scope["type"] == "http" and scope["path"] == self._infer_path and scope["method"] == "POST":
            scope["path_params"] = {"model": self.service.settings.name}  # nearly all take this way, without a search
            answer = self._infer
        if scope["type"] != "http" or self._log is None:
            await answer(scope, receive, send)
            return
        began_s, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await answer(scope, receive, watched)
        finally:
            self._log.write(scope, status, time.perf_counter() - began_s)

    # --- inference ------------------------------------------------------------------------------------------

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = time.perf_counter()
        metrics = self.service.metrics
        self.inside += 1
        try:
            answered = await self._answer(scope, receive)
        except RequestError as error:
            metrics.count(error.status)
            if error.unread:
                await _refuse_early(error, receive, send)
            else:
                await _send(send, error.status, _error(error), retry=error.status in (429, 503))
            return
        except Exception:  # noqa: BLE001 - a defect of ours, and the client is to hear of it
            _log.exception("a request failed")
            metrics.count(500)
            await _send(send, 500, to_json({"error": "an internal error, which the server's log shows"}))
            return
        finally:
            self.inside -= 1
        scope["onnx_shift_variant"] = answered.variant
        await _send_answer(send, answered)
        metrics.count(200, answered.variant)
        metrics.latency.observe(time.perf_counter() - began_s)

    async def _answer(self, scope: Scope, receive: Receive) -> Answered:
        service, path = self.service, scope["path_params"]
        variant = path.get("variant")
        self._check_model(path["model"])
        if variant is not None:
            service.check_variant(variant)
        if self.draining.closed:
            raise RequestError(503, "the server is stopping")
        limits = service.settings.limits
        header_length: str | None = None
        for name, value in scope["headers"]:
            if name == _LENGTH_HEADER:
                header_length = value.decode("latin-1")
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise RequestError(415, f"content-encoding {value.decode('latin-1')}: bodies are taken as they are")
        body = await read_body(scope, receive, limits.body_bytes, limits.body_s, limits.request_s)
        return await service.pool.ask(Asked(body, header_length, variant), limits.request_s)

    def _check_model(self, name: str) -> None:
        if name != self.service.settings.name:
            raise RequestError(404, f"there is no model {shown(name)} here, only {shown(self.service.settings.name)}")

    # --- what can be asked besides --------------------------------------------------------------------------

    async def _server(self, request: Request) -> Response:
        extensions = ["binary_tensor_data", *(["model_repository"] if self.service.settings.allow_load else [])]
        return _json({"name": "onnx-shift", "version": __version__, "extensions": extensions})

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        self._check_ready()
        return _json({"ready": True})

    async def _model(self, request: Request) -> Response:
        self._check_path(request)
        contract, portfolio = self.service.contract, self.service.switcher.portfolio
        return _json(
            {
                "name": self.service.settings.name,
                "versions": [variant.name for variant in portfolio],
                "platform": "onnxruntime_onnx",
                "inputs": [tensor.described() for tensor in contract.inputs.values()],
                "outputs": [tensor.described() for tensor in contract.outputs.values()],
            }
        )

    async def _model_ready(self, request: Request) -> Response:
        self._check_path(request)
        self._check_ready()
        return _json({"name": self.service.settings.name, "ready": True})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.service.metrics.text(), media_type=self.service.metrics.content_type)

    async def _load(self, request: Request) -> Response:
        self._check_model(request.path_params["model"])
        limits = self.service.settings.limits
        body = await read_body(request.scope, request.receive, _MAX_COMMAND_BYTES, limits.body_s, limits.request_s)
        if body.strip() not in (b"", b"{}"):
            raise RequestError(400, "load takes no parameters: it reads the server's own file again")
        sha256 = await asyncio.to_thread(self.service.update)
        return _json({"name": self.service.settings.name, "sha256": sha256})

    def _check_path(self, request: Request) -> None:
        self._check_model(request.path_params["model"])
        if "variant" in request.path_params:
            self.service.check_variant(request.path_params["variant"])

    def _check_ready(self) -> None:
        if self.draining.began:
            raise RequestError(503, "the server is stopping")


class _Raw:
    """An endpoint that Starlette hands the request as it came, without an object around it."""

    def __init__(self, endpoint: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


# --- bodies in ----------------------------------------------------------------------------------------------


async def read_body(scope: Scope, receive: Receive, limit_bytes: int, pause_s: float, limit_s: float) -> bytes:
    """Return the body. Raises RequestError: 413 above the limit, 408 after a pause of `pause_s` or `limit_s` in all."""
    stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if stated.isdigit() and int(stated) > limit_bytes:
        raise RequestError(413, f"a body of {int(stated)} bytes, above the limit of {limit_bytes}", unread=True)
    parts: list[bytes] = []
    size_bytes, until_s = 0, time.perf_counter() + limit_s
    while True:
        message = await _next_part(receive, min(pause_s, until_s - time.perf_counter()))
        if message is None:
            raise RequestError(408, f"the body stalled after {size_bytes} bytes", unread=True)
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the client left")
        part = message.get("body", b"")
        size_bytes += len(part)
        more = message.get("more_body", False)
        if size_bytes > limit_bytes:
            raise RequestError(413, f"a body of more than {limit_bytes} bytes, the limit", unread=more)
        parts.append(part)
        if not more:
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _discard(receive: Receive) -> None:
    """Read what a client still sends, for a while: many hear the answer only when they are done."""
    until_s, size_bytes = time.perf_counter() + _DISCARD_S, 0
    while size_bytes < _DISCARDED_BYTES:
        message = await _next_part(receive, until_s - time.perf_counter())
        if message is None or not message.get("more_body", False):
            return
        size_bytes += len(message["body"])


@types.coroutine
def _next_part(receive: Receive, limit_s: float) -> Generator[Any, None, Message | None]:
    """Return the next message, None where none comes within `limit_s`.

    Most have come already: they need no timer, let alone the task that asyncio.wait_for makes.
    """
    steps = receive().__await__()
    try:
        awaited = next(steps)
    except StopIteration as done:
        return cast(Message, done.value)
    return (yield from _in_time(_rest(awaited, steps), limit_s).__await__())


@types.coroutine
def _rest(awaited: object, steps: Generator[Any, None, Message]) -> Generator[Any, None, Message]:
    """Wait for what `steps` waits for, and go on with them."""
    try:
        yield awaited
        return (yield from steps)
    finally:
        steps.close()


async def _in_time(coming: Awaitable[Message], limit_s: float) -> Message | None:
    task, late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(max(0.0, limit_s), give_up)
    try:
        return await coming
    except asyncio.CancelledError:
        if not late:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        return None
    finally:
        timer.cancel()


# --- answers out --------------------------------------------------------------------------------------------


def _json(content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, "application/json")


def _error(error: OnnxShiftError) -> bytes:
    return to_json({"error": str(error)})


async def _send(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
    *,
    retry: bool = False,
) -> None:
    sent = [*headers, (b"content-length", b"%d" % len(body)), *([(b"retry-after", b"1")] if retry else [])]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


@lru_cache
def _variant_header(name: str) -> tuple[bytes, bytes]:
    return VARIANT_HEADER.encode(), quote(name).encode()


async def _send_answer(send: Send, answered: Answered) -> None:
    variant = _variant_header(answered.variant)
    if answered.header_length is None:
        await _send(send, 200, answered.body, ((b"content-type", b"application/json"), variant))
    else:
        length = (_LENGTH_HEADER, b"%d" % answered.header_length)
        await _send(send, 200, answered.body, ((b"content-type", b"application/octet-stream"), length, variant))


async def _refuse_early(error: RequestError, receive: Receive, send: Send) -> None:
    """Answer a request whose body has not come whole, take in the rest for a while, and close the connection."""
    body = _error(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if error.status == 413:
        await _discard(receive)
    await send({"type": "http.response.body", "body": b""})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: "there is nothing at this path", 405: f"{request.method} is not allowed here"}
    text = what.get(error.status_code, str(error.detail))
    return _json({"error": text}, error.status_code, dict(error.headers or {}))


async def _refused(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, error.status if isinstance(error, RequestError) else 400)
