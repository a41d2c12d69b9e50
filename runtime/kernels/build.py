"""Building the shared library of the kernels from their C sources with a compiler at hand."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = (
    "-std=gnu11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall",
)  # fmt: skip


def library_name() -> str:
    """The library's file name on this platform."""
    return {"win32": "onnx_shift_kernels.dll", "darwin": "libonnx_shift_kernels.dylib"}.get(
        sys.platform, "libonnx_shift_kernels.so"
    )


def find_compiler() -> list[str] | None:
    """The command of a C compiler: $CC, else the first of cc, gcc and clang that is installed, else ziglang's."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def build(output: Path, compiler: Sequence[str] | None = None, flags: Sequence[str] = ()) -> Path:
    """Compile the kernels into the shared library `output`, which appears whole or not at all; `flags` follow ours.

    Raises RuntimeError where there is no compiler, or with what it said where it fails.
    """
    command = list(compiler or find_compiler() or ())
    if not command:
        raise RuntimeError("no C compiler was found (looked for cc, gcc, clang and the package ziglang)")
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    call = [*command, *FLAGS, *flags, *sources, "-o", str(unfinished)]
    try:
        done = subprocess.run(call, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    unfinished.replace(output)
    return output


if __name__ == "__main__":
    try:
        print(build(SOURCES / library_name()))
    except RuntimeError as error:
        sys.exit(f"error: {error}")
