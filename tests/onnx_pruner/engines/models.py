"""A small network that every runtime takes, what onnxruntime says of it, and when a runtime's tests are skipped."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_shift.onnx_pruner.engines.engine import CannotRunError, MissingEngineError, Run, open_model
from tests.networks import network

BATCH = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)


def skip_unless_installed(engine: str) -> None:
    try:
        open_model(engine, Path("nothing.onnx"), Path())
    except MissingEngineError as error:
        pytest.skip(str(error))
    except (CannotRunError, OSError):  # it is there, and the file is not
        pass


def opened(engine: str, folder: Path) -> tuple[Run, np.ndarray]:
    """Return the network opened in a runtime, and onnxruntime's answer to `BATCH`."""
    skip_unless_installed(engine)
    path = folder / "network.onnx"
    onnx.save(network(16), path)
    own = folder / engine
    own.mkdir()
    answer = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": BATCH})[0]
    return open_model(engine, path, own, threads=1), answer
