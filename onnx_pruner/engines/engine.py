"""Runtimes other than onnxruntime: a model's file and named arrays in, arrays out, in float32, one file each.

Most of them run a format of their own, so a model is converted first, by what its makers offer.
"""

import ctypes
import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_shift.errors import OnnxShiftError, first_line
from onnx_shift.onnx_pruner.graph.network import graph_inputs

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], list[Array]]  # inputs by name to outputs in their order. Raises CannotRunError.
Shapes = Mapping[str, tuple[int, ...]]

#: The distribution and the import name of what each needs; the extra that installs them has the runtime's name.
ENGINES: Mapping[str, Mapping[str, str]] = {
    "openvino": {"openvino": "openvino"},
    "mnn": {"MNN": "MNN"},
    "ncnn": {"ncnn": "ncnn", "pnnx": "pnnx"},
    "litert": {"ai-edge-litert": "ai_edge_litert"},
}
_SECONDS_TO_CONVERT = 300


class MissingEngineError(OnnxShiftError):
    """A runtime, or what converts models for it, is not installed."""


class CannotRunError(Exception):
    """A runtime refuses a model or an input; the text is the runtime's own reason."""


def open_model(engine: str, path: Path, folder: Path, threads: int = 0) -> Run:
    """Open the ONNX file `path` in a runtime, with `threads` for one inference (0: as many as the runtime likes).

    `folder` is empty and takes files as long as the model runs. Raises MissingEngineError, CannotRunError.
    """
    check_installed(engine)
    module = importlib.import_module(f"onnx_shift.onnx_pruner.engines.{engine}")
    run: Run = module.open_model(path, folder, threads)
    return run


def check_installed(engine: str) -> None:
    """Raise MissingEngineError, which tells how to install it, unless the runtime is there."""
    if not all(importlib.util.find_spec(module) for module in ENGINES[engine].values()):
        raise MissingEngineError(f"runtime {engine!r} is not installed; install the extra onnx-shift[{engine}]")


def engine_version(engine: str) -> str:
    """Return the versions of an installed runtime and of its converter."""
    return ", ".join(f"{name} {version(name)}" for name in ENGINES[engine])


def saved_whole(path: Path, folder: Path) -> Path:
    """Write the model, its external weights in it, to a folder that a converter may fill. Raises CannotRunError."""
    found = folder / "model.onnx"
    try:
        onnx.save(onnx.load(path), found)
    except ValueError as error:  # beyond the 2 GB of one message
        raise CannotRunError(said(error)) from error
    return found


def convert(command: Sequence[str], folder: Path, made: str) -> Path:
    """Run a converter in `folder` and return the file `made` that it leaves. Raises CannotRunError."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS_TO_CONVERT)
    except subprocess.TimeoutExpired as error:
        raise CannotRunError(f"not converted within {_SECONDS_TO_CONVERT} seconds") from error
    if not (folder / made).exists():
        told = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise CannotRunError(f"not converted (exit status {done.returncode}: {' '.join(told[-3:])[:300]})")
    return folder / made


def image_by_image(path: Path, start: Callable[[Shapes], Run]) -> Run:
    """Return a run of batches in a runtime without them: `start` opens the model for inputs of one image.

    Raises CannotRunError where an input is no batch of images.
    """
    for value in graph_inputs(onnx.load(path, load_external_data=False).graph):
        sizes = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
        if sizes[:1] != [1]:
            raise CannotRunError(f"input {value.name!r} is no batch that may hold one image")
    ready: dict[tuple[Any, ...], Run] = {}

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        count = {len(array) for array in feeds.values()}.pop()
        shapes = {name: (1, *array.shape[1:]) for name, array in feeds.items()}
        key = tuple(shapes.items())
        if key not in ready:
            ready[key] = start(shapes)
        answers = [
            ready[key]({name: array[index : index + 1] for name, array in feeds.items()}) for index in range(count)
        ]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    return run


def said(error: Exception) -> str:
    """Return a runtime's reason in one line, without the source lines that OpenVINO begins with."""
    return first_line(error, without=("Exception from", "Check '"))


@contextmanager
def silenced() -> Iterator[None]:
    """Keep what a library's C code prints out of standard output, where results go."""
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
