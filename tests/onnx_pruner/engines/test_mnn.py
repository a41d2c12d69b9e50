from pathlib import Path

import numpy as np

from tests.onnx_pruner.engines.models import BATCH, opened


def test_a_batch_is_answered_as_onnxruntime_does(tmp_path: Path) -> None:
    run, answer = opened("mnn", tmp_path)
    (found,) = run({"input": BATCH})
    np.testing.assert_allclose(found, answer, rtol=1e-4, atol=1e-5)
