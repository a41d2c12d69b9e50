"""Graphs that onnxruntime optimised for this device, kept so that each is optimised once.

onnxruntime writes its optimised graph with the tensors already laid out for the processor; a session over it
needs no optimisation and copies nothing. Such a graph belongs to one model, processor, set of providers,
session options and onnxruntime version: all five make its key. An entry is one archive file, written
atomically, every member hashed. The folder may be deleted at any time and be used by several processes at
once.
"""

import hashlib
import json
import logging
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import atomic_open
from onnx_shift.runtime.archive import Member, new_member, read_archive
from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.inflate import Bytes
from onnx_shift.runtime.portfolio import (
    MODEL,
    Content,
    Tensor,
    content_of,
    read_manifest,
    tensor_table,
    write_with_manifest,
)
from onnx_shift.runtime.session import (
    BUILD_ERRORS,
    EXTERNAL_FILE,
    Arrays,
    Providers,
    build_optimised_session,
    build_session,
)
from onnx_shift.runtime.skeleton import NUMPY_TYPES, ExternalTensor, external_tensors

_FORMAT = 1  # raise it whenever entries written before must not be read any more
_INSIDE_BYTES = 1024  # smaller tensors stay in the model
_FILE_BYTES = 4 << 20  # tensors are gathered into files of about this size, which are inflated side by side
_ALIGNMENT = 64
_STALE_S = 3600
_PROCESSOR_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU architecture", "CPU part")

_log = logging.getLogger(__name__)


def default_folder() -> Path | None:
    """Return where entries are kept: $ONNX_SHIFT_CACHE (empty: nowhere), else the user's cache folder."""
    chosen = os.environ.get("ONNX_SHIFT_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "onnx-shift"
    except RuntimeError:  # no home
        return None


def cache_key(model_sha256: str, options: ort.SessionOptions, providers: Providers) -> str:
    """Return the name of the entry for this model here: see the module for what it depends on."""
    chosen = [
        (name, sorted(given.items())) for name, given in zip(providers.names, providers.options, strict=True)
    ]
    parts = (_FORMAT, model_sha256, _processor(), chosen, _readable_options(options), ort.__version__)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _readable_options(options: ort.SessionOptions) -> list[str]:
    names = (name for name in dir(options) if not name.startswith("_"))
    values = {name: getattr(options, name) for name in names}
    return [f"{name}={value}" for name, value in values.items() if not callable(value)]


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        [platform.machine(), *sorted({line for line in lines if line.startswith(_PROCESSOR_FIELDS)})]
    )


def load(folder: Path, key: str) -> Content | None:
    """Return the entry `key`, or None where there is none that is whole."""
    path = _entry_path(folder, key)
    if not path.exists():
        return None
    try:
        members = read_archive(path)
        return content_of(read_manifest(members), members)
    except (PortfolioError, KeyError, TypeError, AttributeError) as error:
        _log.warning("%s: ignored and made anew (%s)", path, error)
        return None


def store(folder: Path, key: str, content: Content) -> None:
    """Keep `content` as the entry `key`. A folder that cannot be written is only logged: nothing depends on
    it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        with atomic_open(_entry_path(folder, key)) as file:
            body = {"tensors": tensor_table(content)}
            write_with_manifest(file, body, [content.model, *content.weights.values()])
    except (OnnxShiftError, OSError) as error:
        _log.warning("%s: the optimised graph is not kept (%s)", folder, error)


def _entry_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.zip"


def _remove_stale(folder: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # another process was first
            if path.stat().st_mtime < time.time() - _STALE_S:
                path.unlink()


def optimise(
    model: bytes, arrays: Arrays, fresh_options: Callable[[], ort.SessionOptions], providers: Providers
) -> Content | None:
    """Return the model as onnxruntime optimises it here, deflated; None where it cannot be taken apart."""
    try:
        with tempfile.TemporaryDirectory(prefix="onnx-shift-") as folder:
            inputs, skeleton, raw = _write_optimised(model, arrays, fresh_options(), providers, Path(folder))
        tensors = external_tensors(skeleton)
        if any(tensor.type not in NUMPY_TYPES for tensor in tensors):
            return None
        views = {
            tensor.name: raw[tensor.offset : tensor.offset + _size_bytes(tensor)]
            .view(NUMPY_TYPES[tensor.type])
            .reshape(tensor.shape)
            for tensor in tensors
        }
        session = build_optimised_session(skeleton, views, fresh_options(), providers)
    except BUILD_ERRORS as error:
        _log.warning("the graph cannot be optimised ahead (%s)", error)
        return None
    if [value.name for value in session.get_inputs()] != inputs:
        return None  # what onnxruntime wrote takes other inputs: initializers that it folded and still lists as such
    files = [
        _weights_file(f"weights-{index:03}.bin", group, views) for index, group in enumerate(_groups(tensors))
    ]
    return Content(
        new_member(MODEL, skeleton),
        MappingProxyType({member.name: member for member, _ in files}),
        tuple(tensor for _, placed in files for tensor in placed),
    )


def _write_optimised(
    model: bytes, arrays: Arrays, options: ort.SessionOptions, providers: Providers, folder: Path
) -> tuple[list[str], bytes, Bytes]:
    """Let onnxruntime write its optimised graph; return its inputs, the graph, and the tensors outside it."""
    path, weights = folder / MODEL, folder / EXTERNAL_FILE.name
    options.optimized_model_filepath = str(path)
    setting = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{setting}file_name", weights.name)
    options.add_session_config_entry(f"{setting}min_size_in_bytes", str(_INSIDE_BYTES))
    options.log_severity_level = max(options.log_severity_level, 3)  # "only for the same environment": it is
    inputs = [value.name for value in build_session(model, arrays, options, providers).get_inputs()]
    raw = np.fromfile(weights, np.uint8) if weights.exists() else np.empty(0, np.uint8)
    return inputs, path.read_bytes(), raw


def _size_bytes(tensor: ExternalTensor) -> int:
    return math.prod(tensor.shape) * np.dtype(NUMPY_TYPES[tensor.type]).itemsize


def _groups(tensors: Iterable[ExternalTensor]) -> Iterator[list[ExternalTensor]]:
    group: list[ExternalTensor] = []
    for tensor in tensors:
        group.append(tensor)
        if sum(map(_size_bytes, group)) >= _FILE_BYTES:
            yield group
            group = []
    if group:
        yield group


def _weights_file(name: str, group: list[ExternalTensor], views: Arrays) -> tuple[Member, list[Tensor]]:
    placed: list[Tensor] = []
    content = bytearray()
    for tensor in group:
        content.extend(bytes(-len(content) % _ALIGNMENT))
        placed.append(Tensor(tensor.name, NUMPY_TYPES[tensor.type], tensor.shape, name, len(content)))
        content.extend(views[tensor.name].data.cast("B") if views[tensor.name].size else b"")
    return new_member(name, content), placed
