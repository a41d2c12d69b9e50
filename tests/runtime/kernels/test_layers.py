"""The kernels under sanitizers, without onnxruntime by `layers.c` and inside it; and for 64-bit Arm by emulation."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from onnx_shift.runtime.kernels.build import SOURCES, build, find_compiler

DRIVER = Path(__file__).with_name("layers.c")
FLAGS = ("-std=gnu11", "-O1", "-g", "-Wall", "-Werror", "-ffp-contract=fast")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

# Runs tests over the library that it is given; without the arena each tensor is a buffer that a sanitizer knows.
INSIDE = """
import sys
from pathlib import Path
import onnxruntime, pytest
from onnx_shift.runtime.kernels import registration
registration.library = lambda: Path(sys.argv[1])
given = onnxruntime.SessionOptions
class SessionOptions(given):
    def __init__(self):
        super().__init__()
        self.enable_cpu_mem_arena = False
onnxruntime.SessionOptions = SessionOptions
sys.exit(pytest.main(["-q", "-s", "-m", "not slow", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def sanitizing(tmp_path: Path) -> list[str]:
    """A compiler that has both sanitizers."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C compiler is installed")
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }")
    call = [*compiler, *SANITIZERS, str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty")]
    if subprocess.run(call, capture_output=True).returncode or subprocess.run([str(tmp_path / "empty")]).returncode:
        pytest.skip(f"{compiler[0]} has no AddressSanitizer or UndefinedBehaviorSanitizer here")
    return compiler


def compile_driver(compiler: Sequence[str], flags: Sequence[str], program: Path) -> None:
    sources = [str(DRIVER), str(SOURCES / "simd.c")]  # the driver takes in layer.c itself
    subprocess.run([*compiler, *FLAGS, *flags, f"-I{SOURCES}", *sources, "-o", str(program), "-lm"], check=True)


def check(command: Sequence[object], levels: str, count: int) -> None:
    """Run the driver, which tells of the first layer that is wrong and fails."""
    done = subprocess.run([*map(str, command), "1", str(count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.match(r"((?:\w+ )+)(\d+) right, (\d+) of as many damaged refused", done.stdout)
    assert found and set(found[1].split()) >= set(levels.split()), done.stdout
    tried = count * len(found[1].split())
    assert int(found[2]) == tried and tried > int(found[3]) > tried / 2


def test_random_and_damaged_layers_stay_inside_their_buffers(sanitizing: list[str], tmp_path: Path) -> None:
    compile_driver(sanitizing, SANITIZERS, tmp_path / "layers")
    check([tmp_path / "layers"], "baseline", 1000)


def test_inside_onnxruntime_they_stay_inside_their_buffers(sanitizing: list[str], tmp_path: Path) -> None:
    # Python is no C++ program: the sanitizer looks for what throws exceptions before onnxruntime brings it.
    preloaded = [
        subprocess.run([*sanitizing, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    if not all(Path(path).is_absolute() for path in preloaded):
        pytest.skip(f"{sanitizing[0]} does not say where the sanitizer's library lies, to load it before Python")
    library = build(tmp_path / "kernels.so", sanitizing, ("-O1", "-g", *SANITIZERS))
    environment = os.environ | {"LD_PRELOAD": " ".join(preloaded), "ASAN_OPTIONS": "detect_leaks=0"}
    tests = str(Path(__file__).with_name("test_exact.py"))
    call = [sys.executable, "-c", INSIDE, str(library), tests]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


def test_random_and_damaged_layers_on_64_bit_arm(tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang, which compiles for Arm, is not installed (pip install onnx-shift[wheels])")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (apt-get install qemu-user-static)")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    compile_driver(compiler, [], tmp_path / "layers")
    check([emulator, tmp_path / "layers"], "baseline", 200)
