"""Where is measured: the processor or board, its software, and the providers that work on it."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from onnx_shift.onnx_pruner.engines.engine import engine_version
from onnx_shift.portfolio.profile import Machine, ProfileError
from onnx_shift.runtime import ProviderError
from onnx_shift.runtime.session import choose_providers


def machine(providers: Sequence[str], threads: int, date: str | None, runtimes: Sequence[str] = ()) -> Machine:
    """Return where and with what was measured: processor, versions, providers, other runtimes, threads, date."""
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 1,
        system=platform.platform(terse=True),
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        onnx=onnx.__version__,
        providers=(*providers, *runtimes),
        threads=threads,
        date=date,
        runtimes={runtime: engine_version(runtime) for runtime in runtimes},
    )


def check_providers(providers: Sequence[str]) -> None:
    """Raise ProfileError for one that is not there or does not start: the CPU would stand in for it unasked."""
    provider = ""
    try:
        for provider in providers:
            choose_providers([provider])
    except ProviderError as error:
        known = ", ".join(onnxruntime.get_available_providers())
        raise ProfileError(
            f"provider {provider}: not in this onnxruntime, which has {known}, or it does not start here"
        ) from error


def processor() -> str:
    """Return the name of this machine's processor, on Arm that of the board, which its processor does not tell."""
    try:
        board = Path("/proc/device-tree/model").read_text().strip("\0 \n")
        if board:
            return board
    except (OSError, UnicodeDecodeError):
        pass
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
