"""ncnn through pnnx, with weights left in float32 (pnnx rounds them to float16 by itself). It knows no batches."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import ncnn
import numpy as np
import onnx

from onnx_shift.onnx_pruner.engines.engine import (
    Array,
    CannotRunError,
    Run,
    Shapes,
    convert,
    image_by_image,
    saved_whole,
)


def open_model(path: Path, folder: Path, threads: int) -> Run:
    whole = saved_whole(path, folder)
    outputs = len(onnx.load(path, load_external_data=False).graph.output)
    return image_by_image(path, lambda shapes: _start(whole, shapes, outputs, threads))


def _start(path: Path, shapes: Shapes, outputs: int, threads: int) -> Run:
    spec = importlib.util.find_spec("pnnx")
    assert spec is not None and spec.origin is not None  # it was looked for before
    program = Path(spec.origin).with_name(
        "pnnx.exe" if os.name == "nt" else "pnnx"
    )  # its Python side loads torch first
    sizes = ",".join(f"[{','.join(map(str, shape))}]f32" for shape in shapes.values())
    convert([str(program), path.name, f"inputshape={sizes}", "fp16=0"], path.parent, "model.ncnn.bin")
    net = ncnn.Net()
    # Half precision is on by default.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(path.with_name("model.ncnn.param"))) or net.load_model(str(path.with_name("model.ncnn.bin"))):
        raise CannotRunError("ncnn does not load what pnnx made of it")

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        images = [np.ascontiguousarray(feeds[name][0]) for name in shapes]  # a Mat points into the array
        if any(image.dtype != np.float32 for image in images):
            raise CannotRunError("an input is no float32")
        with net.create_extractor() as extractor:
            for index, image in enumerate(images):
                extractor.input(f"in{index}", ncnn.Mat(image))
            found = [extractor.extract(f"out{index}") for index in range(outputs)]
            if any(status for status, _ in found):
                raise CannotRunError("ncnn computes no output")
            return [np.array(value)[np.newaxis] for _, value in found]

    return run
