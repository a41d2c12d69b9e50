"""An epoch: batches, precision, devices."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onnx_shift.exporter.recipe import Recipe, RecipeError, override
from onnx_shift.exporter.rounds import Progress, train
from onnx_shift.exporter.training import TrainingError, sound_convolutions
from onnx_shift.models.registry import build
from onnx_shift.portfolio.data import Dataset
from tests.exporter.conftest import Start, stored_weights


def test_a_last_batch_of_one_image_is_left_out(tiny_recipe: Recipe, run: Start) -> None:
    seen: list[Progress] = []
    run(override(tiny_recipe, levels=0, epochs=1, batch_size=19, rewind_steps=0), progress=seen.append)
    assert len(seen) == 5  # 96 images are five batches of 19 and one image


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_folder(
    tiny_recipe: Recipe, run: Start, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"not a number any more in round 0 before step .*below 1e\+30"):
        run(override(tiny_recipe, learning_rate=1e30))
    assert (tmp_path / "run/recipe.json").exists()
    assert not (tmp_path / "run/checkpoints/last.pt").exists()


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": False}, {"nesterov": True}])
def test_precision_and_memory_order_are_options(options: dict[str, object], tiny_recipe: Recipe, run: Start) -> None:
    result = run(override(tiny_recipe, levels=1, epochs=6, **options))
    assert result.levels[1].accuracy > 0.5  # four classes told apart by brightness


@pytest.mark.parametrize(
    ("model", "width", "processor", "device", "onednn"),
    [
        ("resnet20-cifar", 0.25, "AVX2", "cpu", False),  # projections of 4 channels
        ("resnet20-cifar", 0.25, "AVX512", "cpu", True),
        ("resnet20-cifar", 0.25, "AVX2", "cuda", True),
        ("resnet20-cifar", 0.5, "AVX2", "cpu", True),
        ("vgg16", 0.0625, "AVX2", "cpu", True),  # as narrow, but none is strided
    ],
)
def test_onednn_is_left_out_where_it_would_write_out_of_bounds(
    model: str, width: float, processor: str, device: str, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    network = build(model, num_classes=10, in_channels=3, width=width)
    with sound_convolutions(network, torch.device(device)):
        assert torch.backends.mkldnn.enabled == onednn
    assert torch.backends.mkldnn.enabled


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, while it loads its compiler
def test_compiled_training_agrees_with_plain(tiny_recipe: Recipe, run: Start, tmp_path: Path) -> None:
    recipe = override(tiny_recipe, levels=0, epochs=1, learning_rate=1e-3)
    run(recipe, "plain")
    run(replace(recipe, compile=True), "compiled")
    plain, compiled = stored_weights(tmp_path / "plain", 0), stored_weights(tmp_path / "compiled", 0)
    assert max(float((plain[name] - compiled[name]).abs().max()) for name in plain) < 1e-4


def test_a_normalisation_of_other_channels_is_refused(tiny_recipe: Recipe, run: Start) -> None:
    for options in ({"mean": (0.5, 0.5), "std": (0.2, 0.2)}, {"mean": (0.5,)}):
        with pytest.raises(RecipeError, match=r"^--set mean, std: \d and \d numbers, but the images have 1 channels$"):
            run(override(tiny_recipe, **options))


def test_a_device_that_is_not_there_is_refused(tiny_recipe: Recipe, tiny_data: Dataset, tmp_path: Path) -> None:
    for device in ("cuda:7", "abacus"):
        with pytest.raises(TrainingError, match=f"--device {device}: not there"):
            train(tiny_recipe, tmp_path / "run", device=device, dataset=tiny_data)
