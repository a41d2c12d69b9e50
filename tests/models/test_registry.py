"""Every model of the table: output shape, size as published, RepVGG merged equal to RepVGG trained."""

import pytest
import torch

from onnx_shift.errors import OnnxShiftError
from onnx_shift.models.registry import MODELS, ModelError, build, check_output, initialise
from tests.models.sizes import parameter_count


@pytest.mark.parametrize("name", MODELS)
def test_every_model_maps_images_to_class_scores(name: str) -> None:
    model = build(name, num_classes=7, in_channels=1, width=0.125)
    check_output(model, (1, 32, 32), 7)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("vgg16", 10, 14_728_266),  # 14.72 M in the paper
        ("resnet20-cifar", 10, 272_474),
        ("resnet50", 1000, 25_557_032),
        ("resnet50", 200, 23_917_832),  # 23.9 M with the 200-way head
        ("mobilenet-v2", 1000, 3_504_872),
    ],
)
def test_sizes_are_the_published_ones(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert parameter_count(build(name, num_classes=classes, in_channels=3)) == parameters


def test_width_multiplies_channels() -> None:
    quarter = build("vgg16", num_classes=10, in_channels=3, width=0.25)
    assert quarter.get_parameter("layers.0.conv.weight").shape == (16, 3, 3, 3)
    assert quarter.get_parameter("fc.weight").shape == (10, 128)


def test_initialise_draws_gamma_between_zero_and_one() -> None:
    torch.manual_seed(0)
    model = build("vgg11", num_classes=10, in_channels=3)
    initialise(model, uniform_batchnorm=True)
    gamma = model.get_parameter("layers.10.bn.weight")
    assert 0 <= gamma.min() < 0.05
    assert 0.95 < gamma.max() <= 1
    assert abs(float(model.get_parameter("layers.10.conv.weight").detach().std()) - (2 / (512 * 9)) ** 0.5) < 1e-3


def test_a_foreign_factory_gets_the_arguments_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "their_models.py").write_text(
        "import torch\n"
        "def net(num_classes, in_channels):\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(in_channels, num_classes, 8), torch.nn.Flatten())\n"
        "number = 3\n"
        "def broken(): raise ValueError('no such depth')\n"
        "def text(): return 'a model'\n"
        "def odd(): return {}['depth']\n"
        "class Net(torch.nn.Conv2d):\n"
        "    def forward(self, x): assert x.shape[2] > 8\n"
        "def small(in_channels): return Net(in_channels, 4, 8)\n"
    )
    (tmp_path / "their_slip.py").write_text("import torch\nwidth = depth\n")
    monkeypatch.chdir(tmp_path)
    check_output(build("their_models:net", num_classes=4, in_channels=2), (2, 8, 8), 4)
    for name, message in [
        ("their_models:nothing", "cannot be imported"),
        ("their_models:number", "is not callable"),
        ("their_models:broken", "the factory failed .ValueError: no such depth."),
        ("their_models:odd", "the factory failed .KeyError: 'depth'."),
        ("their_slip:net", "cannot be imported .NameError: name 'depth' is not defined."),
        ("their_models:text", "returned str, not a torch module"),
        ("vgg17", "unknown; choose one of vgg11"),
    ]:
        with pytest.raises(OnnxShiftError, match=message):
            build(name, num_classes=4, in_channels=2)
    with pytest.raises(ModelError, match=r"of shape \(2, 8, 8\) in evaluation \(AssertionError\)"):
        check_output(build("their_models:small", num_classes=4, in_channels=2), (2, 8, 8), 4)


def test_a_head_of_another_size_than_the_data_is_refused() -> None:
    model = build("vgg-digits", num_classes=10, in_channels=1)
    with pytest.raises(ModelError, match=r"evaluation is \(2, 10\) for two images, but the data has 12 c"):
        check_output(model, (1, 8, 8), 12)
    with pytest.raises(ModelError, match="cannot take images of shape"):
        check_output(model, (3, 8, 8), 10)


class _BesideInTraining(torch.nn.Linear):
    """Scores beside the scores, in training alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        scores = super().forward(x.flatten(1))
        return (scores, scores) if self.training else scores


def test_what_training_would_fail_on_is_refused_before_it() -> None:
    with pytest.raises(ModelError, match="output in training is tuple for two images"):
        check_output(_BesideInTraining(4, 3), (1, 2, 2), 3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    model.kept = model[1].weight * 2
    with pytest.raises(ModelError, match=r"cannot be copied .RuntimeError: Only Tensors created explicitly"):
        check_output(model, (1, 2, 2), 3)


def test_the_check_draws_nothing_and_changes_nothing() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(4, 3))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check_output(model, (1, 2, 2), 3)
    assert torch.rand(1) == expected
    assert model.training
    assert model[0].num_batches_tracked == 0
