"""OpenVINO, which reads ONNX itself; asked for float32, as it takes bfloat16 by itself where the processor has it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino

from onnx_shift.onnx_pruner.engines.engine import Array, CannotRunError, Run, said

_REFUSALS = (RuntimeError, TypeError, ValueError)


def open_model(path: Path, folder: Path, threads: int) -> Run:
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
    except _REFUSALS as error:
        raise CannotRunError(said(error)) from error

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        try:
            # Not by name: two outputs that compute the same may share a port. The arrays are the runtime's: copy.
            return [np.array(value) for value in compiled(dict(feeds)).to_tuple()]
        except _REFUSALS as error:
            raise CannotRunError(said(error)) from error

    return run
