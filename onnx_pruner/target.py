"""What a processor asks of the counts of channels: whether zero channels that are kept back pay there."""

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from onnx_shift.onnx_pruner.graph.network import PruneError

#: Counts at convolutions are kept at multiples of this. On x86-64 onnxruntime's blocked kernels take whole groups of
#: four channels; its builds for 64-bit Arm have no such kernels, so that every channel kept for alignment costs.
ALIGNMENTS: Mapping[str, int] = {"x86-64-avx512": 4, "x86-64-avx2": 4, "arm64": 1, "any": 4}


def alignment_of(target: str) -> int:
    """Return the alignment that pays on `target`, "this" for the processor at hand. Raises PruneError."""
    name = this_target() if target == "this" else target
    if name not in ALIGNMENTS:
        raise PruneError(f"{{target}}: there are this, {', '.join(ALIGNMENTS)}", target=target)
    return ALIGNMENTS[name]


@cache
def this_target() -> str:
    """Return which of `ALIGNMENTS` the processor at hand is, "any" where none."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return "arm64"
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "any"
    known = (("avx512f", "x86-64-avx512"), ("avx2", "x86-64-avx2")) if machine in ("x86_64", "amd64") else ()
    return next((name for flag, name in known if flag in flags), "any")
