"""One line of JSON per request."""

import sys
import time
from collections.abc import Mapping
from typing import IO, Any

import orjson


class AccessLog:
    """Writes to `file`, by default standard error: time of day in seconds, client, method, path, status, milliseconds
    and the variant that answered.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file = file or sys.stderr

    def write(self, scope: Mapping[str, Any], status: int, took_s: float) -> None:
        """Log a request that was answered with `status` (0: not at all) after `took_s`."""
        client = scope.get("client")
        line = {
            "time_s": round(time.time(), 3),
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(took_s * 1e3, 3),
            "variant": scope.get("onnx_shift_variant"),
        }
        self._file.write(orjson.dumps(line).decode() + "\n")
