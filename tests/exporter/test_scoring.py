"""Scoring in several passes empties no layer."""

from dataclasses import replace

import pytest
import torch

from onnx_shift.exporter.masks import count_all
from onnx_shift.exporter.methods import METHODS, next_mask
from onnx_shift.exporter.saliency import synflow
from onnx_shift.models.registry import build, initialise
from tests.exporter.networks import scoring_of


def test_synflow_never_empties_a_layer() -> None:
    torch.manual_seed(0)
    model = build("vgg11", num_classes=4, in_channels=1, width=0.125)
    initialise(model, uniform_batchnorm=True)
    scoring = scoring_of(model, (1, 32, 32))
    mask = next_mask(METHODS["synflow"], scoring, count_all(scoring.mask) // 1000)
    assert min(int(kept.sum()) for kept in mask.values()) > 0


@pytest.mark.parametrize("model", ["resnet56-cifar", "mobilenet-v2-cifar"])
def test_synflow_empties_no_layer_of_a_deep_network(model: str) -> None:
    """Scores beyond float32, and what ReLU6 would cut off, must not make whole layers tie at one value."""
    torch.manual_seed(0)
    network = build(model, num_classes=4, in_channels=3, width=0.5)
    initialise(network, uniform_batchnorm=False)
    scoring = scoring_of(network, (3, 8, 8))
    scores = synflow(scoring)
    assert all(score.isfinite().all() and score.max() > 0 for score in scores.values())
    method = replace(METHODS["synflow"], passes=10)
    mask = next_mask(method, scoring, count_all(scoring.mask) // 8)
    assert min(int(kept.sum()) for kept in mask.values()) > 0
