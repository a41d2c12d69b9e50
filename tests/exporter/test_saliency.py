"""Scores by gradients, on networks small enough to compute."""

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from onnx_shift.exporter.saliency import grasp, snip, synflow
from tests.exporter.networks import linear, scoring_of


def test_snip_is_the_weight_times_its_gradient() -> None:
    model = linear()
    scoring = scoring_of(model, (1, 3, 3))
    (images, labels), *_ = scoring.batches(1)
    weight = model[1].weight
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), labels), weight)
    assert torch.allclose(snip(scoring)["1.weight"], 8 * (weight * gradient).abs().detach(), rtol=1e-4)


def test_grasp_predicts_the_change_of_the_gradients_norm() -> None:
    model = linear().double()
    scoring = scoring_of(model, (1, 3, 3))
    ((images, labels),) = scoring.batches(1)
    scoring = replace(scoring, batches=lambda count: [(images.double(), labels)])
    score = grasp(scoring)["1.weight"]

    def norm() -> torch.Tensor:
        loss = F.cross_entropy(model(images.double()) / 200.0, labels)
        return torch.autograd.grad(loss, model[1].weight)[0].square().sum()

    before = norm()
    with torch.no_grad():
        model[1].weight[2, 5] *= 1 - 1e-4
    change = (norm() - before) / -1e-4  # removing it wholly, to first order; the norm counts both ways
    assert torch.allclose(change, 2 * score[2, 5], rtol=1e-3)


class _Attention(nn.Module):
    """Each row of an image attends to the others."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, 24), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.into(x).split(8, dim=-1)
        return self.out(F.scaled_dot_product_attention(query, key, value).flatten(1))


def test_grasp_derives_attention_twice() -> None:
    torch.manual_seed(0)
    scores = grasp(scoring_of(_Attention(), (1, 8, 8)))
    assert all(float(scores[name].abs().max()) > 0 for name in ("into.weight", "out.weight"))


def test_synflow_conserves_its_sum_from_layer_to_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    scores = synflow(scoring_of(model, (1, 3, 3)))
    assert torch.allclose(scores["1.weight"].sum(), scores["3.weight"].sum())
    expected = model[3].weight.abs().sum(0)[:, None] * model[1].weight.abs()
    assert torch.allclose(scores["1.weight"], expected.double(), rtol=1e-5)
