"""Other ways to compute a model, which differ by rounding alone."""

import numpy as np

from onnx_shift.onnx_pruner.verification.engines import read
from onnx_shift.onnx_pruner.verification.rounding import NEIGHBOURS, other_ways
from tests.onnx_pruner.verification.models import conv_model


def test_weights_move_in_their_last_place_and_the_model_given_stays() -> None:
    model = conv_model()
    before = model.SerializeToString()
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 2, 8, 8)).astype(np.float32)}
    outputs = [run(feeds)[0][0] for run in other_ways("onnxruntime", read(model, "net"), "")]
    assert len(outputs) == 1 + NEIGHBOURS
    assert len({output.tobytes() for output in outputs}) > 2
    assert max(np.abs(output - outputs[0]).max() for output in outputs) < 1e-5 * np.abs(outputs[0]).max()
    assert model.SerializeToString() == before
