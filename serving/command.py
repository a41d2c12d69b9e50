"""The command `serve`: from its options to a server, and what it tells on the way."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from onnx_shift.runtime.policies import chosen_policy
from onnx_shift.serving.server import serve
from onnx_shift.serving.settings import Limits, Settings


def serve_portfolio(
    portfolio: Path,
    *,
    host: str,
    port: int,
    name: str | None,
    p95: float | None,
    policy: str | None,
    start: str | None,
    provider: Sequence[str] | None,
    threads: int,
    workers: int,
    queue: int,
    max_body: int,
    max_batch: int,
    batch_ms: float,
    body_timeout: float,
    timeout: float,
    linger: float,
    drain: float,
    trusted: Path | None,
    allow_load: bool,
    access_log: bool,
) -> None:
    """Serve until a signal says to stop. The address goes to standard output, the log to standard error.

    Raises OnnxShiftError where the portfolio, the policy or the address cannot be had.
    """
    limits = Limits(
        body_bytes=max_body,
        batch=max_batch,
        workers=workers,
        queue=queue,
        body_s=body_timeout,
        request_s=timeout,
        linger_s=linger,
        drain_s=drain,
    )
    settings = Settings(
        portfolio,
        name or portfolio.stem,
        host=host,
        port=port,
        start=start,
        providers=tuple(provider or ()),
        session_threads=threads,
        batch_ms=batch_ms,
        trusted=trusted,
        allow_load=allow_load,
        access_log=access_log,
        limits=limits,
    )
    if not serve(settings, chosen_policy(policy, p95), _tell):
        sys.stderr.write("not all requests were answered in time\n")
        sys.stderr.flush()
        os._exit(1)  # a thread still inside onnxruntime would abort an orderly end


def _tell(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
