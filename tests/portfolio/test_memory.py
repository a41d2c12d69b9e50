"""Memory of a session, measured in a process of its own."""

from pathlib import Path

import numpy as np

from onnx_shift.portfolio.memory import measure_sessions
from tests.portfolio.models import save


def test_memory_of_a_session_is_at_least_its_weights(tmp_path: Path) -> None:
    weights = np.ones((72, 60_000), np.float32)
    body = "f = Flatten(input)\n h = MatMul(f, w)\n r = Relu(h)\n logits = MatMul(r, v)"
    big = save(tmp_path / "big.onnx", body, {"w": weights, "v": np.ones((60_000, 7), np.float32)})
    alone = measure_sessions([big])
    both = measure_sessions([big, big])
    assert alone is not None
    assert both is not None
    assert alone.peak_bytes >= alone.resident_bytes > weights.nbytes
    assert both.resident_bytes > 1.8 * weights.nbytes
