"""The example in C gives the answers of Python; it needs onnxruntime's header, which no Python package brings."""

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_shift.runtime import kernels
from onnx_shift.runtime.kernels.build import find_compiler
from onnx_shift.runtime.kernels.find import find_layers
from onnx_shift.runtime.kernels.rewrite import rewrite
from tests.networks import network

EXAMPLE = Path(__file__).parents[2] / "examples" / "kernels.c"
HEADER = "onnxruntime_c_api.h"


def header_folder() -> Path:
    """$ONNXRUNTIME_INCLUDE, or where a package of the system puts it."""
    given = os.environ.get("ONNXRUNTIME_INCLUDE")
    folders = [Path(given)] if given else [Path("/usr/include"), Path("/usr/local/include")]
    found = [path.parent for folder in folders for path in sorted(folder.rglob(HEADER))]
    if not found:
        pytest.skip(f"{HEADER} is not installed (a package such as libonnxruntime-dev; or set ONNXRUNTIME_INCLUDE)")
    return found[0]


def test_the_example_in_c_answers_as_python_does(tmp_path: Path) -> None:
    compiler, include = find_compiler(), header_folder()
    runtime = sorted((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if compiler is None or kernels.missing() or not runtime:
        pytest.skip("no C compiler, no kernels, or a package of onnxruntime without its shared library")
    model = onnx.shape_inference.infer_shapes(network(32, zeros=0.95))
    onnx.save(rewrite(model, find_layers(model), 1), tmp_path / "fast.onnx")
    program = tmp_path / "kernels"
    (tmp_path / "libonnxruntime.so.1").symlink_to(runtime[0])  # the name that it goes by
    links = [str(runtime[0]), f"-Wl,-rpath,{tmp_path}", "-o", str(program)]
    subprocess.run([*compiler, "-Wall", "-Werror", str(EXAMPLE), f"-I{include}", *links], check=True)
    call = [str(program), str(kernels.library()), "fast.onnx", "input", "logits", "1", "3", "8", "8"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": np.ones((1, 3, 8, 8), np.float32)})
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], expected[0], rtol=1e-4, atol=1e-5)
