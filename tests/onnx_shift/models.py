"""Small networks for the digits, and the command in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.options import as_option


def shift(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "onnx_shift", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def digits_network(path: Path, channels: int, **metadata: str) -> Path:
    """A network for the digits: a convolution of this many channels, every other one without weights."""
    body = "c = Conv<pads = [1,1,1,1]>(input, w)\n a = Relu(c)\n p = GlobalAveragePool(a)\n f = Flatten(p)"
    text = (
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,1,8,8] input) => (float[N,10] logits) '
        f"{{ {body}\n logits = Gemm<transB = 1>(f, v, b) }}"
    )
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(channels)
    for name, shape in (("w", (channels, 1, 3, 3)), ("v", (10, channels)), ("b", (10,))):
        values = generator.standard_normal(shape).astype(np.float32)
        if name == "w":
            values[::2] = 0
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for key, value in metadata.items():
        model.metadata_props.add(key=f"onnx_shift.{key}", value=value)
    onnx.save(model, path)
    return path


def refusal(*arguments: object) -> str:
    """What the command, run in this process, is refused with."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, OnnxShiftError), result.output
    return result.exception.told(as_option)


def free_axes(path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["" : 13]> g (float[N,C] a) => (float[N,C] y) { y = Relu(a) }'
    onnx.save(onnx.parser.parse_model(text), path)
    return path
