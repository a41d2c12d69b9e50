"""Whole-batch augmentation against the same thing done image by image."""

import torch
import torch.nn.functional as F  # noqa: N812

from onnx_shift.exporter.augmentation import Draws, draw, resized_crop, shift_and_flip
from onnx_shift.exporter.recipe import Recipe

CPU = torch.device("cpu")


def test_shift_and_flip_is_pad_crop_mirror() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 6, 7), generator=generator, dtype=torch.uint8)
    draws = draw(Recipe(augmentation="flip-crop", crop_padding=2), 20, generator, CPU)
    result = shift_and_flip(images, draws, 2)
    assert 0 < int(draws.flip.sum()) < 20
    assert draws.offset.min() == 0
    assert draws.offset.max() == 4
    for index in range(20):
        top, left = draws.offset[index].tolist()
        expected = F.pad(images[index], (2, 2, 2, 2))[:, top : top + 6, left : left + 7]
        assert torch.equal(result[index], expected.flip(2) if draws.flip[index] else expected)


def test_resized_crop_cuts_and_mirrors_the_box() -> None:
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(2, 1, 1, 1)
    whole = Draws(flip=torch.tensor([False, True]), box=torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2))
    result = resized_crop(images, whole)
    assert torch.allclose(result[0], images[0], atol=1e-4)
    assert torch.allclose(result[1], images[1].flip(2), atol=1e-4)
    corner = Draws(flip=torch.tensor([False]), box=torch.tensor([[0.5, -0.5, 0.5, 0.5]]))
    expected = F.interpolate(images[:1, :, :4, 4:], size=(8, 8), mode="bilinear", align_corners=False)
    inner = resized_crop(images[:1], corner)[0, 0, 1:-1, 1:-1]
    assert torch.allclose(inner, expected[0, 0, 1:-1, 1:-1], atol=1e-4)


def test_boxes_have_the_recipes_areas_and_stay_inside() -> None:
    recipe = Recipe(augmentation="resized-crop", crop_scale=(0.1, 1.0), crop_ratio=(0.8, 1.25))
    box = draw(recipe, 5000, torch.Generator().manual_seed(0), CPU).box
    x, y, half_width, half_height = box.unbind(1)
    assert ((x.abs() + half_width) <= 1 + 1e-6).all()
    assert ((y.abs() + half_height) <= 1 + 1e-6).all()
    area = half_width * half_height
    assert 0.0999 < area.min() < 0.11
    assert 0.5 < area.mean() < 0.56
    assert (half_width / half_height).max() < 1.26


def test_a_batch_takes_its_rows_and_digits_are_not_mirrored() -> None:
    draws = draw(Recipe(augmentation="shift", crop_padding=1), 10, torch.Generator().manual_seed(0), CPU)
    part = draws.take(slice(4, 7))
    assert torch.equal(part.offset, draws.offset[4:7])
    assert part.flip is None
    images = torch.ones(2, 1, 4, 4, dtype=torch.uint8)
    assert shift_and_flip(images, draw(Recipe(augmentation="none"), 2, torch.Generator(), CPU), 4) is images
