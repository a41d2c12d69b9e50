"""Letting onnxruntime optimise a graph once for this device, and taking the result apart.

The first time only; what it gives is kept by `cache`.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort

from onnx_shift.ort import BUILD_ERRORS
from onnx_shift.runtime.archive import Member, new_member
from onnx_shift.runtime.branches import hoist_inner_tensors
from onnx_shift.runtime.content import MODEL, Content, Tensor
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.inflate import Bytes
from onnx_shift.runtime.kernels import missing, register
from onnx_shift.runtime.portfolio import Signature
from onnx_shift.runtime.session import EXTERNAL_FILE, Arrays, Providers, build_optimised_session, build_session
from onnx_shift.runtime.skeleton import (
    INSIDE_BYTES,
    NUMPY_TYPES,
    ExternalTensor,
    Node,
    append_aligned,
    external_tensors,
    nodes,
)

_FILE_BYTES = 4 << 20  # tensors are gathered into files of about this size, which are inflated side by side
DOMAIN = "onnx_shift"  # our kernels' operators
_BLOCKED = "com.microsoft.nchwc"  # onnxruntime's convolutions over weights in the processor's own blocks
# Identity hands on a branch's weight that is its output; it packs nothing.
_ONCE = {
    *(("", operator) for operator in ("Gemm", "MatMul", "Identity")),
    *(("com.microsoft", operator) for operator in ("FusedGemm", "FusedMatMul")),
}
_WORTH_BYTES = 1 << 20

_log = logging.getLogger(__name__)


def optimise(
    model: bytes,
    arrays: Arrays,
    fresh_options: Callable[[], ort.SessionOptions],
    providers: Providers,
    inputs: Sequence[Signature],
) -> Content | None:
    """Return the model, which takes `inputs`, as onnxruntime optimises it here, deflated.

    None where it cannot be taken apart, or where the options make it another model than all would have of it.
    """

    sparse: bytes | None = None

    def options() -> ort.SessionOptions:
        chosen = fresh_options()
        chosen.enable_profiling = False  # nobody asked for a profile of this
        if sparse is not None:
            register(chosen)
        return chosen

    try:
        sparse = _with_kernels(model, arrays, options, providers, inputs)
        if sparse is not None:
            model, arrays = sparse, {}
        with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
            skeleton, raw = _write_optimised(model, arrays, options(), providers, Path(folder))
        skeleton = hoist_inner_tensors(skeleton)
        tensors = external_tensors(skeleton)
        if any(tensor.type not in NUMPY_TYPES for tensor in tensors):
            return None
        views = {
            tensor.name: raw[tensor.offset : tensor.offset + tensor.size_bytes]
            .view(NUMPY_TYPES[tensor.type])
            .reshape(tensor.shape)
            for tensor in tensors
        }
        prepack = not _copies_a_classifier(nodes(skeleton), tensors)
        session = build_optimised_session(skeleton, views, options(), providers, prepack=prepack)
    except BUILD_ERRORS as error:
        _log.warning("the graph cannot be optimised ahead (%s)", error)
        return None
    if not _takes(session, inputs):
        return None
    files = [_weights_file(f"weights-{index:03}.bin", group, views) for index, group in enumerate(_groups(tensors))]
    return Content(
        new_member(MODEL, skeleton),
        MappingProxyType({member.name: member for member, _ in files}),
        tuple(tensor for _, placed in files for tensor in placed),
        prepack,
        sparse is not None,
    )


def _with_kernels(
    model: bytes,
    arrays: Arrays,
    options: Callable[[], ort.SessionOptions],
    providers: Providers,
    inputs: Sequence[Signature],
) -> bytes | None:
    """Return the model with its sparse layers rewritten for our kernels where that is faster here; None where not."""
    if not providers.only_cpu:
        return None
    if reason := missing():
        _warn_once(reason)
        return None
    try:
        from onnx_shift.runtime.kernels.choose import random_feeds
        from onnx_shift.runtime.kernels.compile import compile_model, with_tensors

        choice = compile_model(with_tensors(model, arrays), feeds=random_feeds(inputs), make_options=options)
    except (ImportError, KernelsError) as error:
        _log.warning("its sparse layers run as dense ones (%s)", error)
        return None
    return choice.model.SerializeToString() if choice.changed else None


@cache
def _warn_once(reason: str) -> None:
    _log.warning("layers with scattered zeros run as dense ones (%s)", reason)


def _takes(session: ort.InferenceSession, inputs: Sequence[Signature]) -> bool:
    """Whether the session takes just these inputs, and none of their free dimensions was fixed.

    onnxruntime may list initializers that it folded as inputs. Options may override free dimensions, which cannot be
    read from them; such a graph must not be kept for options that do not.
    """
    found = {value.name: value.shape for value in session.get_inputs()}
    return list(found) == [value.name for value in inputs] and not any(
        isinstance(there, int) and not isinstance(declared, int)
        for value in inputs
        for there, declared in zip(found[value.name] or (), value.shape, strict=False)
    )


def _write_optimised(
    model: bytes, arrays: Arrays, options: ort.SessionOptions, providers: Providers, folder: Path
) -> tuple[bytes, Bytes]:
    """Let onnxruntime write its optimised graph; return it, and the tensors outside it."""
    path, weights = folder / MODEL, folder / EXTERNAL_FILE.name
    options.optimized_model_filepath = str(path)
    setting = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{setting}file_name", weights.name)
    options.add_session_config_entry(f"{setting}min_size_in_bytes", str(INSIDE_BYTES))
    options.log_severity_level = max(options.log_severity_level, 3)  # "only for the same environment": it is
    build_session(model, arrays, options, providers)
    raw = np.fromfile(weights, np.uint8) if weights.exists() else np.empty(0, np.uint8)
    return path.read_bytes(), raw


def _copies_a_classifier(nodes: Iterable[Node], tensors: Iterable[ExternalTensor]) -> bool:
    """Whether all that prepacking would do is copy a classifier, small beside convolutions whose weights lie in blocks.

    Of a ResNet-50's 102 MB it has 8: its session is ready in 2 instead of 5 ms, and answers of 1 and of 16 images
    take as long as before. Weights that are read again and again, by loops or recurrent operators, do need packing.
    """
    readers: dict[str, list[tuple[str, str]]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.operator)
    sizes = {tensor.name: tensor.size_bytes for tensor in tensors}
    rest = {
        name: size for name, size in sizes.items() if not any(domain == _BLOCKED for domain, _ in readers.get(name, ()))
    }
    once = all(len(readers.get(name, ())) == 1 and readers[name][0] in _ONCE for name in rest)
    return once and _WORTH_BYTES <= sum(rest.values()) <= sum(sizes.values()) / 10


def _groups(tensors: Iterable[ExternalTensor]) -> Iterator[list[ExternalTensor]]:
    group: list[ExternalTensor] = []
    size_bytes = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.type):  # of one type: floats that hardly deflate stay raw
        if group and (size_bytes >= _FILE_BYTES or tensor.type != group[-1].type):
            yield group
            group, size_bytes = [], 0
        group.append(tensor)
        size_bytes += tensor.size_bytes
    if group:
        yield group


def _weights_file(name: str, group: list[ExternalTensor], views: Arrays) -> tuple[Member, list[Tensor]]:
    placed: list[Tensor] = []
    content = bytearray()
    for tensor in group:
        offset = append_aligned(content, views[tensor.name].data.cast("B") if views[tensor.name].size else b"")
        placed.append(Tensor(tensor.name, NUMPY_TYPES[tensor.type], tensor.shape, name, offset))
    return new_member(name, content), placed
