"""LiteRT through onnx2tf, a command that may lie in an environment of its own: its releases pin other versions."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from onnx_shift.onnx_pruner.engines.engine import (
    Array,
    CannotRunError,
    MissingEngineError,
    Run,
    Shapes,
    convert,
    image_by_image,
    said,
    saved_whole,
)

CONVERTER = "onnx2tf"


def open_model(path: Path, folder: Path, threads: int) -> Run:
    if shutil.which(CONVERTER) is None:
        raise MissingEngineError(f"runtime 'litert': the command {CONVERTER} is not there (pipx install {CONVERTER})")
    whole = saved_whole(path, folder)
    return image_by_image(path, lambda shapes: _start(whole, shapes, threads))


def _start(path: Path, shapes: Shapes, threads: int) -> Run:
    sizes = [f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items()]
    kept = ["-kat", *shapes]  # inputs stay channels first
    command = [CONVERTER, "-i", path.name, "-o", "converted", "-ois", *sizes, *kept]
    converted = convert(command, path.parent, "converted/model_float32.tflite")
    try:
        interpreter = Interpreter(model_path=str(converted), num_threads=threads or None)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise CannotRunError(said(error)) from error
    places = {value["name"].removeprefix("serving_default_").split(":")[0]: value["index"]
              for value in interpreter.get_input_details()}  # fmt: skip
    outputs = [value["index"] for value in interpreter.get_output_details()]

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        try:
            for name in shapes:
                interpreter.set_tensor(places[name], np.ascontiguousarray(feeds[name]))
            interpreter.invoke()
        except (KeyError, RuntimeError, ValueError) as error:
            raise CannotRunError(said(error)) from error
        return [np.array(interpreter.get_tensor(index)) for index in outputs]

    return run
