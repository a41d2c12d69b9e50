"""Whole-batch augmentation on the device: chance is drawn once per epoch for every image, then applied
batch by batch.

Because the draws belong to images and not to batches, they are the same however many processes share a batch.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnx_shift.exporter.recipe import Recipe


@dataclass(frozen=True)
class Draws:
    """One epoch's chance, one row per image; absent where the augmentation does not use it."""

    flip: Tensor | None = None  # bool (N,)
    offset: Tensor | None = None  # int64 (N, 2), 0 … 2 · padding
    box: Tensor | None = None  # float32 (N, 4): centre x, y and half width, height in -1 … 1 coordinates

    def take(self, index: slice) -> "Draws":
        """The rows of one batch."""
        return Draws(*(None if part is None else part[index] for part in (self.flip, self.offset, self.box)))


def draw(recipe: Recipe, count: int, generator: torch.Generator, device: torch.device) -> Draws:
    """Draw what `count` images need for the recipe's augmentation."""
    if recipe.augmentation == "none":
        return Draws()
    offset = box = flip = None
    if recipe.augmentation == "resized-crop":
        box = _boxes(recipe, count, generator).to(device)
    else:
        offset = torch.randint(0, 2 * recipe.crop_padding + 1, (count, 2), generator=generator).to(device)
    if recipe.augmentation != "shift":  # mirrored digits are no digits
        flip = (torch.rand(count, generator=generator) < 0.5).to(device)
    return Draws(flip, offset, box)


def _boxes(recipe: Recipe, count: int, generator: torch.Generator) -> Tensor:
    low, high = recipe.crop_scale
    area = torch.empty(count).uniform_(low, high, generator=generator)
    ratio = torch.empty(count).uniform_(
        math.log(recipe.crop_ratio[0]), math.log(recipe.crop_ratio[1]), generator=generator
    )
    half_width = (area * ratio.exp()).sqrt().clamp(max=1.0)
    half_height = (area / ratio.exp()).sqrt().clamp(max=1.0)
    place = torch.rand(count, 2, generator=generator) * 2 - 1
    return torch.stack(
        [place[:, 0] * (1 - half_width), place[:, 1] * (1 - half_height), half_width, half_height], dim=1
    )


def shift_and_flip(images: Tensor, draws: Draws, padding: int) -> Tensor:
    """Pad uint8 images (N, C, H, W) with zeros, crop each back to its size at its offset, and mirror the
    chosen ones.
    """
    if draws.offset is None:
        return images
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) + draws.offset[:, :1]
    columns = torch.arange(width, device=images.device).expand(count, width)
    if draws.flip is not None:
        columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    columns = columns + draws.offset[:, 1:]
    padded_width = width + 2 * padding
    padded = F.pad(images, (padding,) * 4).flatten(2)  # also of no image: a process's share of the last batch
    places = (rows[:, :, None] * padded_width + columns[:, None, :]).flatten(1)
    index = places.unsqueeze(1).expand(-1, channels, -1)
    return padded.gather(2, index).view(count, channels, height, width)


def resized_crop(images: Tensor, draws: Draws) -> Tensor:
    """Cut each image's box out of float images (N, C, H, W), mirrored or not, and resize it to (H, W),
    bilinearly.
    """
    if draws.box is None:
        return images
    centre_x, centre_y, half_width, half_height = draws.box.unbind(1)
    sign = torch.ones_like(centre_x) if draws.flip is None else 1 - 2 * draws.flip.to(centre_x.dtype)
    zero = torch.zeros_like(centre_x)
    theta = torch.stack([half_width * sign, zero, centre_x, zero, half_height, centre_y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
