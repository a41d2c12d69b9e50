"""Resident memory of open sessions or of a portfolio, each measured in a process of its own.

`python -m onnx_shift.portfolio.memory` is the process that is measured: it reads a request as JSON from
stdin and answers on stdout. What onnxruntime itself takes is subtracted: a session of one node is open before
the first reading. Bytes are those of /proc/self; elsewhere than on Linux the answer is None.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from onnx_shift.errors import OnnxShiftError
from onnx_shift.ort import CPU
from onnx_shift.portfolio.sessions import fixed_batch, open_session, random_inputs, session_options
from onnx_shift.runtime.session import IDENTITY_MODEL

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Resident:
    """Bytes above a process with an idle onnxruntime: now, and at the highest point on the way."""

    resident_bytes: int
    peak_bytes: int


def measure_sessions(
    models: Sequence[Path],
    *,
    providers: Sequence[str] = (CPU,),
    threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Resident | None:
    """Open a session of every model, run each once, and return what all of them hold together."""
    request = {
        "models": [str(path) for path in models],
        "providers": list(providers),
        "threads": threads,
        "input_shapes": dict(input_shapes or {}),
    }
    return next(iter(_ask(request).values()), None)


def measure_portfolio(portfolio: Path, *, providers: Sequence[str] = (CPU,), threads: int = 1) -> dict[str, Resident]:
    """Open a portfolio with a switcher and return what the process holds while each variant is active."""
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as cache:
        request = {
            "portfolio": str(portfolio),
            "providers": list(providers),
            "threads": threads,
            "cache": cache,
        }
        _ask(request)  # the first start on a device optimises every graph, once
        return _ask(request)


def _ask(request: Mapping[str, Any]) -> dict[str, Resident]:
    if not _STATUS.exists():
        return {}
    done = subprocess.run(
        [sys.executable, "-m", "onnx_shift.portfolio.memory"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        subject = request.get("portfolio") or ", ".join(request["models"])
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise OnnxShiftError(f"{subject}: resident memory could not be measured ({reason})")
    return {name: Resident(**reading) for name, reading in json.loads(done.stdout).items()}


def _answer(request: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    options = session_options(request["threads"])
    idle = onnxruntime.InferenceSession(IDENTITY_MODEL, options, providers=request["providers"])
    before = _read_status("VmRSS")

    def reading() -> dict[str, int]:
        return {
            "resident_bytes": _read_status("VmRSS") - before,
            "peak_bytes": max(0, _read_status("VmHWM") - before),
        }

    readings = {}
    if "portfolio" in request:
        from onnx_shift.runtime import ModelSwitcher, Portfolio

        portfolio = Portfolio.open(request["portfolio"])
        providers, cache = request["providers"], request["cache"]
        with ModelSwitcher(portfolio, options, providers=providers, cache=cache) as model:
            for name in [variant.name for variant in portfolio.variants]:
                model.switch(name)
                model.run(None, random_inputs(model, fixed_batch(model) or 1, 0))
                readings[name] = reading()
    else:
        sessions = []
        for path in request["models"]:
            session = open_session(Path(path), request["providers"], request["threads"])
            session.run(None, random_inputs(session, fixed_batch(session) or 1, 0, request["input_shapes"]))
            sessions.append(session)
        readings["all"] = reading()
    del idle
    return readings


def _read_status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OnnxShiftError(f"{_STATUS}: has no {field}")


if __name__ == "__main__":
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)
