"""MNN, its converter called directly: the command `mnnconvert` installs a package by pip and reports what it did."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from onnx_shift.onnx_pruner.engines.engine import Array, CannotRunError, Run, convert, said, saved_whole, silenced
from onnx_shift.onnx_pruner.graph.network import graph_inputs

_CONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
#: Finds scattered zeros while converting, and multiplies them no more.
SPARSE = ("--detectSparseSpeedUp",)


def open_model(path: Path, folder: Path, threads: int, options: Sequence[str] = ()) -> Run:
    """`options` are those of the converter."""
    whole = saved_whole(path, folder)
    files = ["-f", "ONNX", "--modelFile", whole.name, "--MNNModel", "model.mnn", "--bizCode", "onnx-shift"]
    converted = convert([sys.executable, "-c", _CONVERT, *files, *options], folder, "model.mnn")
    graph = onnx.load(path, load_external_data=False).graph
    inputs = [value.name for value in graph_inputs(graph)]
    with silenced():
        from MNN import expr, nn

        settings = {"backend": "CPU", "precision": "high", **({"numThread": threads} if threads else {})}
        manager = nn.create_runtime_manager((settings,))
        outputs = [value.name for value in graph.output]
        module = nn.load_module_from_file(str(converted), inputs, outputs, runtime_manager=manager)
    kinds = {"float32": expr.float, "int32": expr.int, "int64": expr.int64, "uint8": expr.uint8}

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        for name in inputs:
            if feeds[name].dtype.name not in kinds:
                raise CannotRunError(f"input {name!r} is of type {feeds[name].dtype}")
        given = [
            expr.const(np.ascontiguousarray(array), list(array.shape), expr.NCHW, kinds[array.dtype.name])
            for array in (feeds[name] for name in inputs)
        ]
        try:
            return [np.array(value.read()) for value in module.forward(given)]
        except (RuntimeError, TypeError, ValueError) as error:
            raise CannotRunError(said(error)) from error

    return run
