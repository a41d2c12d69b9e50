"""onnxruntime of other versions takes the kernels or refuses them with a reason; none crashes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_shift.runtime import kernels

ROOT = Path(__file__).parents[3]
OLDEST = re.search(r'"onnxruntime>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]

USES = """
import onnxruntime
from onnx_shift.runtime import kernels
from tests.runtime.kernels.networks import difference, random_convolution, random_network, random_product
assert kernels.missing() is None, kernels.missing()
kinds = random_convolution, random_network, random_product
worst = max(difference(*make(seed)) for make in kinds for seed in range(8))
assert worst < 1e-5, worst
print("used by", onnxruntime.__version__)
"""
REFUSED = """
import sys, onnxruntime
try:
    onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])
except Exception as error:
    print("refused by", onnxruntime.__version__, error)
"""


def answer(tmp_path: Path, requirements: list[str], code: str, *arguments: str) -> str:
    """Return what `code` prints where `requirements` stand before what is installed."""
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    done = subprocess.run(
        [*call, "--no-deps", "--target", tmp_path / "site", *requirements], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"{' '.join(requirements)} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("requirement", [f"onnxruntime=={OLDEST}.*", "onnxruntime"])
def test_the_oldest_and_the_newest_release_use_them(tmp_path: Path, requirement: str) -> None:
    assert answer(tmp_path, [requirement], USES).startswith(f"used by {requirement.partition('==')[2].rstrip('*')}")


@pytest.mark.slow
def test_a_release_without_what_they_need_refuses_them(tmp_path: Path) -> None:
    found = answer(tmp_path, ["onnxruntime==1.16.3", "numpy<2"], REFUSED, str(kernels.library()))
    assert "refused by 1.16.3" in found and "need onnxruntime 1.17 or later" in found
