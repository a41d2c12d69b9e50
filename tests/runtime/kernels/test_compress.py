import numpy as np
import pytest

from onnx_shift.runtime.kernels.compress import compress, expand


@pytest.mark.parametrize("block", [1, 3, 8, 100])
def test_compressed_weights_expand_to_what_they_were(block: int) -> None:
    random = np.random.default_rng(block)
    weights = random.standard_normal((5, 8, 3, 2)).astype(np.float32) * (random.random((5, 8, 3, 2)) < 0.3)
    rows = compress(weights, block)
    assert len(rows.values) == np.count_nonzero(weights)
    assert np.array_equal(expand(rows, weights.shape), weights)
