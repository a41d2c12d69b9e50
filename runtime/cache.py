"""Graphs that onnxruntime optimised for this device, kept so that each is optimised once.

onnxruntime writes its optimised graph with the tensors already laid out for the processor; a session over it needs no
optimisation and copies nothing. Such a graph belongs to one model, processor, set of providers, session options,
onnxruntime version and build of our kernels: all six make its key. An entry is one archive file, written atomically,
every member hashed. The folder may be deleted at any time and be used by several processes at once.
"""

import os
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import onnxruntime as ort

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime import kernels
from onnx_shift.runtime.archive import read_archive, sha256
from onnx_shift.runtime.content import Content, content_of, tensor_table
from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.portfolio import read_manifest, write_with_manifest
from onnx_shift.runtime.session import Providers

_FORMAT = 5  # raise it whenever entries written before must not be read any more
_STALE_S = 3600
# Session configuration entries that change the optimised graph; onnxruntime tells their values, not which are set.
_GRAPH_ENTRIES = (
    *(f"optimization.{name}" for name in (
        "constant_folding_max_output_size_in_bytes", "disable_specified_optimizers", "enable_cast_chain_elimination",
        "enable_gelu_approximation", "minimal_build_optimizations",
    )),
    *(f"session.{name}" for name in (
        "disable_aot_function_inlining", "disable_cpu_ep_fallback", "disable_double_qdq_remover", "disable_prepacking",
        "disable_qdq_constant_folding", "disable_quant_qdq", "enable_dq_matmulnbits_fusion", "enable_quant_qdq_cleanup",
        "function_expansion_byte_limit", "function_expansion_node_limit", "graph_optimizations_loop_level",
        "kernel_dispatch_policy", "name_based_layer_assignment", "qdq_matmulnbits_accuracy_level",
        "qdq_matmulnbits_block_size", "qdqisint8allowed", "set_denormal_as_zero", "use_deterministic_compute",
        "x64quantprecision",
    )),
    *(f"mlas.{name}" for name in (
        "disable_kleidiai", "nchwc_depthwise_sliding", "nchwc_pointwise_conv_max_input_channel_batch", "use_lut_gemm",
    )),
)  # fmt: skip
_LOGGING = (
    "log",
    "profile",
    "enable_profiling",
    "optimized_model",
)  # begin names of options that change no graph
_PROCESSOR_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU architecture", "CPU part")


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
    import json

    chosen = [(name, sorted(given.items())) for name, given in zip(providers.names, providers.options, strict=True)]
    ours = kernels.identity() if providers.only_cpu else ""
    parts = (_FORMAT, model_sha256, _processor(), chosen, _readable_options(options), ort.__version__, ours)
    return sha256(json.dumps(parts).encode())


def _readable_options(options: ort.SessionOptions) -> list[str]:
    names = (name for name in dir(options) if not name.startswith(("_", *_LOGGING)))
    values: dict[str, object] = {name: getattr(options, name) for name in names}
    for entry in _GRAPH_ENTRIES:
        with suppress(RuntimeError):  # not set
            values[entry] = options.get_session_config_entry(entry)
    return [f"{name}={value}" for name, value in values.items() if not callable(value)]


@cache
def _processor() -> str:
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.startswith(_PROCESSOR_FIELDS)})])


def load(folder: Path, key: str) -> Content | None:
    """Return the entry `key`, or None where there is none that is whole."""
    path = _entry_path(folder, key)
    try:
        if not path.exists():
            return None
        members = read_archive(path)
        manifest = read_manifest(members)
        if manifest["key"] != key:
            raise PortfolioError("it is of another graph")
        return content_of(manifest, members)._replace(
            prepack=manifest["prepack"] is not False, kernels=manifest["kernels"] is True
        )
    except (PortfolioError, OSError, KeyError, TypeError, AttributeError) as error:
        _warn(f"{path}: ignored and made anew ({error})")
        return None


def store(folder: Path, key: str, content: Content) -> None:
    """Keep `content` as the entry `key`. A folder that cannot be written is only logged: nothing depends on
    it.
    """
    from onnx_shift.files import atomic_open

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        with atomic_open(_entry_path(folder, key)) as file:
            body = {
                "key": key,
                "tensors": tensor_table(content),
                "prepack": content.prepack,
                "kernels": content.kernels,
            }
            write_with_manifest(file, body, [content.model, *content.weights.values()])
    except (OnnxShiftError, OSError) as error:
        _warn(f"{folder}: the optimised graph is not kept ({error})")


def _entry_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.zip"


def _remove_stale(folder: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # another process was first
            if path.stat().st_mtime < time.time() - _STALE_S:
                path.unlink()


def _warn(message: str) -> None:
    import logging  # seldom needed, and the runtime's import is held to a budget

    logging.getLogger(__name__).warning(message)
