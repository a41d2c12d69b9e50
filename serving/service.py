"""A portfolio that answers requests: decoding, running and encoding, updates, and requests for one variant by name."""

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime as ort

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime import ClosedError, ModelSwitcher, Portfolio, RunError, SwitchRecord
from onnx_shift.runtime.load import Policy
from onnx_shift.serving.batching import joined, sharing, split
from onnx_shift.serving.codec import Array, Request, decode, encode
from onnx_shift.serving.contract import contract_of
from onnx_shift.serving.errors import RequestError, shown
from onnx_shift.serving.metrics import Metrics
from onnx_shift.serving.pool import Pool
from onnx_shift.serving.settings import Settings

_HASHED_BYTES = 1 << 20
_LIGHT_BYTES = 64 << 10
_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """An inference request as it came: its body, how long its JSON is (None: all of it), and the variant it names."""

    body: bytes
    header_length: str | None
    variant: str | None


class Answered(NamedTuple):
    """The answer: its body, how long its JSON is where raw bytes follow, and the variant that gave it."""

    body: bytes
    header_length: int | None
    variant: str


class Service:
    """A switcher over the portfolio file of `settings`, and the threads that ask it.

    Every variant is made ready once before this returns; from then on the file may be replaced. Raises OnnxShiftError.
    """

    def __init__(self, settings: Settings, policy: Policy | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._updating = threading.Lock()
        self._path = settings.portfolio
        portfolio, self._sha256 = open_portfolio(settings.portfolio, settings.trusted)
        self.contract = contract_of(portfolio.inputs, portfolio.outputs)
        if settings.batch_ms > 0 and not self.contract.batches:
            raise OnnxShiftError(
                f"{settings.portfolio}: an input or output has no free first dimension, so no request can share a run; "
                "leave batching off"
            )
        limits = settings.limits
        options: dict[str, Any] = {
            "sess_options": _session_options(settings.session_threads),
            "providers": list(settings.providers) or None,
        }
        self.pool: Pool[Asked, Answered] = Pool(
            self.answer,
            threads=limits.workers,
            queue=limits.queue,
            batch=limits.batch,
            batch_s=settings.batch_ms / 1e3,
            waited=self.metrics.queued.observe,
            light=lambda asked: asked.variant is None and len(asked.body) <= _LIGHT_BYTES,
        )
        try:
            self.switcher = ModelSwitcher(
                portfolio,
                policy=policy,
                start=settings.start,
                waiting=self.pool.waiting,
                on_switch=self._switched,
                **options,
            )
            self.switcher.prepare()
        except BaseException:
            self.pool.close(0)
            raise
        self._beside = _Beside(options)
        self.metrics.watch(self.switcher, self.pool.waiting)
        self.metrics.show_portfolio(self._sha256)

    def _switched(self, record: SwitchRecord) -> None:
        self.metrics.switches.labels(record.by).inc()

    def close(self, limit_s: float = 0.0) -> bool:
        """Refuse who waits, let the requests inside finish, and return whether they did within `limit_s`."""
        ended = self.pool.close(limit_s)
        self._beside.close()
        self.switcher.close()
        return ended

    def update(self, path: Path | None = None) -> str:
        """Exchange the portfolio for what its file, or from now on the one at `path`, holds; return the file's SHA-256.
        What serves already changes nothing. Raises OnnxShiftError where it is refused; then the old one still serves.
        """
        with self._updating:
            path = path or self._path
            try:
                portfolio, sha256 = open_portfolio(path, self.settings.trusted)
                if sha256 != self._sha256:
                    self.switcher.update(portfolio)
            except OnnxShiftError as error:
                self.metrics.loads.labels("refused").inc()
                raise OnnxShiftError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
            self.metrics.loads.labels("unchanged" if sha256 == self._sha256 else "taken").inc()
            self._path, self._sha256 = path, sha256
            self.metrics.show_portfolio(sha256)
            return sha256

    def check_variant(self, name: str) -> None:
        """Raise RequestError 404 where the portfolio holds no variant of that name."""
        portfolio = self.switcher.portfolio
        if name not in portfolio:
            names = ", ".join(variant.name for variant in portfolio)
            raise RequestError(404, f"version {shown(name)}: the portfolio has no such variant; there are: {names}")

    def answer(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """Return an answer or a refusal for each, in order; what can share a run does."""
        if len(asked) == 1:
            request = self._decode(asked[0])
            return [self._answer_one(request, asked[0].variant) if isinstance(request, Request) else request]
        results: dict[int, Answered | Exception] = {}
        requests: dict[str | None, dict[int, Request]] = {}
        for place, one in enumerate(asked):
            decoded = self._decode(one)
            if isinstance(decoded, Request):
                requests.setdefault(one.variant, {})[place] = decoded
            else:
                results[place] = decoded
        for variant, members in requests.items():
            for group in sharing(members, self.settings.limits.batch):
                answers = self._answer_together([members[place] for place in group], variant)
                results |= zip(group, answers, strict=True)
        return [results[place] for place in range(len(asked))]

    def _decode(self, asked: Asked) -> Request | RequestError:
        try:
            return decode(asked.body, asked.header_length, self.contract, self.settings.limits.batch)
        except RequestError as error:
            return error

    def _answer_together(self, requests: Sequence[Request], variant: str | None) -> Sequence[Answered | Exception]:
        if len(requests) > 1:
            with suppress(OnnxShiftError):  # one may have spoilt it for all: each by itself hears what is wrong
                name, arrays = self._run(requests[0], joined(requests), variant)
                own = split(arrays, requests)
                if own is not None:
                    return [self._encode(request, part, name) for request, part in zip(requests, own, strict=True)]
        return [self._answer_one(request, variant) for request in requests]

    def _answer_one(self, request: Request, variant: str | None) -> Answered | Exception:
        try:
            name, arrays = self._run(request, request.feed, variant)
        except RunError as error:
            return RequestError(400, str(error))
        except ClosedError:
            return RequestError(503, "the server is stopping")
        except RequestError as error:
            return error
        return self._encode(request, arrays, name)

    def _encode(self, request: Request, arrays: Sequence[Array], name: str) -> Answered:
        return Answered(*encode(request, arrays, self.contract, model=self.settings.name, version=name), name)

    def _run(self, request: Request, feed: Mapping[str, Any], variant: str | None) -> tuple[str, list[Any]]:
        """Return the outputs and the variant that gave them: the one that serves, or the one that was asked for."""
        outputs = list(request.outputs)
        if variant is None or variant == self.switcher.active.name:
            answered, arrays = self.switcher.run_named(outputs, feed)
            if variant in (None, answered.name):
                return answered.name, arrays
        assert variant is not None
        self.check_variant(variant)
        return variant, self._beside.run(self.switcher.portfolio, variant, outputs, feed)


class _Beside:
    """A second switcher for requests that name a variant which does not serve; made when the first of them comes."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._switcher: ModelSwitcher | None = None

    def run(self, portfolio: Portfolio, variant: str, outputs: list[str], feed: Mapping[str, Any]) -> list[Any]:
        with self._lock:
            if self._switcher is None or self._switcher.portfolio is not portfolio:
                self._close()
                self._switcher = ModelSwitcher(portfolio, start=variant, **self._options)
            self._switcher.switch(variant)
            return self._switcher.run(outputs, feed)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._switcher is not None:
            self._switcher.close()
        self._switcher = None


def open_portfolio(path: Path, trusted: Path | None) -> tuple[Portfolio, str]:
    """Return the portfolio in a file and the file's SHA-256. Raises OnnxShiftError, also where it changes meanwhile."""
    before, sha256 = _file_identity(path), _file_sha256(path)
    portfolio = Portfolio.open(path, trusted=trusted)
    if _file_identity(path) != before:
        raise OnnxShiftError(f"{path}: changed while it was read")
    return portfolio, sha256


def _file_identity(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError as error:
        raise OnnxShiftError(f"{path}: cannot be read ({error.strerror})") from error
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASHED_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise OnnxShiftError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _session_options(threads: int) -> ort.SessionOptions:
    """Return options for a server: threads that idle give their processors to the others."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
