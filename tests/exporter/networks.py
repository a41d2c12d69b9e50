"""Small networks to score."""

import torch
from torch import nn

from onnx_shift.exporter.masks import full_mask, prunable_weights
from onnx_shift.exporter.recipe import Recipe
from onnx_shift.exporter.scoring import Scoring
from onnx_shift.models.registry import initialise


def scoring_of(model: nn.Module, shape: tuple[int, int, int], recipe: Recipe | None = None) -> Scoring:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, *shape, generator=generator)
    labels = torch.randint(0, 4, (16,), generator=generator)
    return Scoring(
        model=model,
        mask=full_mask(model, prunable_weights(model)),
        recipe=recipe or Recipe(batch_size=8, levels=3),
        round=1,
        image_shape=shape,
        batches=lambda count: [(images, labels)] * count,
        redraw=lambda: initialise(model, uniform_batchnorm=False),
        generator=torch.Generator().manual_seed(1),
    )


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
