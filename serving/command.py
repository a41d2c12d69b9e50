"""The command `serve`: from its options to a server, and what it tells on the way."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from onnx_shift.runtime.load import Policy
from onnx_shift.serving.server import serve
from onnx_shift.serving.settings import Limits, Settings


def serve_portfolio(
    portfolio: Path,
    limits: Limits,
    *,
    host: str,
    port: int,
    name: str | None,
    policy: Policy | None,
    start: str | None,
    providers: Sequence[str],
    session_threads: int,
    batch_ms: float,
    trusted: Path | None,
    allow_load: bool,
    access_log: bool,
) -> None:
    """Serve until a signal says to stop. The address goes to standard output, the log to standard error.

    Raises OnnxShiftError where the portfolio or the address cannot be had.
    """
    settings = Settings(
        portfolio,
        name or portfolio.stem,
        host=host,
        port=port,
        start=start,
        providers=tuple(providers),
        session_threads=session_threads,
        batch_ms=batch_ms,
        trusted=trusted,
        allow_load=allow_load,
        access_log=access_log,
        limits=limits,
    )
    if not serve(settings, policy, _tell):
        sys.stderr.write("not all requests were answered in time\n")
        sys.stderr.flush()
        os._exit(1)  # a thread still inside onnxruntime would abort an orderly end


def _tell(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
