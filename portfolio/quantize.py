"""Quantise models to int8 by onnxruntime's own quantiser: QDQ, one scale per channel, calibrated on images.

The model is pruned first. To a filter without weights the quantiser gives the scale 1, and its bias, rounded to
multiples of that and of the input's scale, is lost (0.0149 became 0.0283); those that pruning keeps, so that channel
counts stay aligned, get the scale of the others instead.
"""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from onnx_shift.claims import ACCURACY, MEASURED_ON, renew_claim
from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner.graph.reading import read_model
from onnx_shift.onnx_pruner.prune import finish, open_source, prune_opened
from onnx_shift.onnx_pruner.target import Fit, fit_of
from onnx_shift.ort import CPU
from onnx_shift.portfolio.accuracy import Batch, class_scores
from onnx_shift.portfolio.sessions import open_session

CALIBRATION_IMAGES = 256
MAX_DROP = 0.02
_FIRST_OPSET = 13  # the first whose DequantizeLinear knows one scale per channel


class QuantiseError(OnnxShiftError):
    """A model that cannot be quantised, or that loses too much by it: the message names it."""


@dataclass(frozen=True)
class Check:
    """The int8 model beside the float one, on the same test images; shares are 0..1.

    `agreement` is the share of images that both put into the same class, `largest_difference` that of the scores as a
    share of the largest score.
    """

    accuracy_float: float
    accuracy_int8: float
    agreement: float
    largest_difference: float
    images: int


@dataclass(frozen=True)
class Quantised:
    """An int8 model, what it was measured to keep, and how many filters without weights were given a scale."""

    model: ModelProto
    check: Check
    mended_filters: int
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        sizes = {"mended_filters": self.mended_filters, "bytes_before": self.bytes_before}
        return {**asdict(self.check), **sizes, "bytes_after": self.bytes_after}


def quantize(
    model: str | os.PathLike[str],
    training: Iterable[Batch],
    test: Iterable[Batch],
    *,
    align: int | None = None,
    target: str = "this",
    calibration_images: int = CALIBRATION_IMAGES,
    max_drop: float = MAX_DROP,
) -> Quantised:
    """Prune and quantise the classifier `model`, calibrated on images of `training`, and check it on `test`.

    Both are batches of (images as the model takes them, class numbers). `align`: as `prune`'s; by default what pays for
    layers in int8 on the processor `target`. Raises QuantiseError naming the model where it
    is quantised already, where onnxruntime does not quantise it, and where the share of right answers falls by more
    than `max_drop`.
    """
    source = read_model(model)
    if any(node.op_type == "DequantizeLinear" for node in source.model.graph.node):
        raise QuantiseError(f"{model}: is quantised already")
    fit = fit_of(target, quantised=True) if align is None else Fit(align)
    opened = open_source(source.model)
    pruned = finish(opened, prune_opened(opened, fit), verify=True).model
    version = next(entry.version for entry in pruned.opset_import if entry.domain in ("", "ai.onnx"))
    if version < _FIRST_OPSET:
        pruned = onnx.version_converter.convert_version(pruned, _FIRST_OPSET)
    quantised = _by_onnxruntime(model, pruned, _first_images(training, calibration_images))
    mended = mend_empty_filters(quantised, pruned)
    check = compare(Path(model), quantised, test)
    if check.accuracy_float - check.accuracy_int8 > max_drop:
        raise QuantiseError(
            f"{model}: quantised, its accuracy falls from {check.accuracy_float:.2%} to {check.accuracy_int8:.2%}; "
            "{max_drop} allows more",
            max_drop=None,
        )
    _state(quantised, check)
    return Quantised(quantised, check, mended, source.file_bytes or 0, quantised.ByteSize())


def compare(original: Path, quantised: ModelProto, test: Iterable[Batch]) -> Check:
    """Run both models on the batches of `test` on the CPU. Raises ProfileError where one does not take them."""
    sessions = [open_session(content, [CPU], 1) for content in (original, quantised.SerializeToString())]
    right, agreed, images = [0, 0], 0, 0
    difference = scale = 0.0
    for pixels, labels in test:
        scores = [class_scores(original, session, pixels) for session in sessions]
        classes = [one.argmax(axis=1) for one in scores]
        right = [count + int((found == labels).sum()) for count, found in zip(right, classes, strict=True)]
        agreed += int((classes[0] == classes[1]).sum())
        images += len(labels)
        difference = max(difference, float(np.abs(scores[0] - scores[1]).max()))
        scale = max(scale, float(np.abs(scores[0]).max()))
    if images == 0:
        raise QuantiseError(f"{original}: there is no test image to check it on")
    return Check(right[0] / images, right[1] / images, agreed / images, difference / (scale or 1.0), images)


def mend_empty_filters(quantised: ModelProto, original: ModelProto) -> int:
    """Give filters without weights the median scale of their layer, and their biases the precision that follows.

    `original` is the float model that `quantised` was made of. Returns how many filters were mended.
    """
    given = {tensor.name: tensor for tensor in quantised.graph.initializer}
    biases = {tensor.name: numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    dequantised = {node.output[0]: node for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    mended = 0
    for node in quantised.graph.node:
        if len(node.input) < 3 or not all(name in dequantised for name in node.input[:3]):
            continue
        data, weight, bias = (dequantised[name] for name in node.input[:3])
        if not all(name in given for name in (weight.input[0], *weight.input[1:2], bias.input[0], data.input[1])):
            continue
        axis = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), 1)
        values = np.moveaxis(numpy_helper.to_array(given[weight.input[0]]), axis, 0)
        scales = numpy_helper.to_array(given[weight.input[1]]).copy()
        empty = np.asarray(~values.reshape(len(values), -1).any(axis=1))
        exact = biases.get(bias.output[0])
        if scales.ndim != 1 or len(scales) != len(empty) or not empty.any() or exact is None:
            continue
        scales[empty] = np.median(scales[~empty]) if not empty.all() else 1 / 64
        steps = numpy_helper.to_array(given[data.input[1]]) * scales
        whole = numpy_helper.to_array(given[bias.input[0]]).copy()
        whole[empty] = np.round(exact[empty] / steps[empty])
        for name, array in ((weight.input[1], scales), (bias.input[0], whole), (bias.input[1], steps)):
            kept = given[name].name
            given[name].CopyFrom(numpy_helper.from_array(array.astype(numpy_helper.to_array(given[name]).dtype), kept))
        mended += int(empty.sum())
    return mended


def _first_images(batches: Iterable[Batch], count: int) -> Iterator[NDArray[Any]]:
    for pixels, _ in batches:
        if count <= 0:
            return
        yield pixels[:count]
        count -= len(pixels)


def _by_onnxruntime(model: str | os.PathLike[str], pruned: ModelProto, images: Iterator[NDArray[Any]]) -> ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = pruned.graph.input[0].name
    fixed = pruned.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    pieces = (
        piece
        for batch in images
        for piece in np.split(batch, range(fixed or 32, len(batch), fixed or 32))
        if not fixed or len(piece) == fixed
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            piece = next(pieces, None)
            return None if piece is None else {name: piece}

    with tempfile.TemporaryDirectory() as folder, _no_warnings():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(pruned, source)
        # Signed weights with unsigned values: on a processor without VNNI 2.4 times as fast as both signed. There sums
        # of two products saturate at 16 bits, unless weights keep to seven of their eight (`reduce_range`).
        how = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "reduce_range": True}
        try:
            quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **how)
        except Exception as error:  # whatever the quantiser meets, it is this model that it cannot take
            raise QuantiseError(f"{model}: onnxruntime does not quantise it ({error!r})") from error
        return onnx.load(target)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """The quantiser advises on standard error to do first what pruning has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _state(quantised: ModelProto, check: Check) -> None:
    """Write the accuracy that was measured into the metadata, in the place of what they claimed of the float model."""
    for entry in list(quantised.metadata_props):
        if entry.key in (ACCURACY, MEASURED_ON):
            quantised.metadata_props.remove(entry)
    quantised.metadata_props.add(key=ACCURACY, value=f"{check.accuracy_int8:.6f}")
    quantised.metadata_props.add(key="onnx_shift.quantised", value="int8")
    renew_claim(quantised)
