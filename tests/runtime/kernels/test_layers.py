"""The kernels without onnxruntime, by `layers.c`: under sanitizers here, and for 64-bit Arm by emulation."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from onnx_shift.runtime.kernels.build import SOURCES, find_compiler

DRIVER = Path(__file__).with_name("layers.c")
FLAGS = ("-std=gnu11", "-O1", "-g", "-Wall", "-Werror", "-ffp-contract=fast")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = pytest.mark.slow


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


def test_random_and_damaged_layers_stay_inside_their_buffers(tmp_path: Path) -> None:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C compiler is installed")
    empty = tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }")
    if subprocess.run([*compiler, *SANITIZERS, empty, "-o", tmp_path / "empty"], capture_output=True).returncode:
        pytest.skip(f"{compiler[0]} has no AddressSanitizer or UndefinedBehaviorSanitizer here")
    compile_driver(compiler, SANITIZERS, tmp_path / "layers")
    check([tmp_path / "layers"], "baseline", 1000)


def test_random_and_damaged_layers_on_64_bit_arm(tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang, which compiles for Arm, is not installed (pip install onnx-shift[wheels])")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (apt-get install qemu-user-static)")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    compile_driver(compiler, [], tmp_path / "layers")
    check([emulator, tmp_path / "layers"], "baseline", 200)
