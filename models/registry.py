"""One table of the models by name, and `build`, which makes one of them or any torch module by
`package.module:factory`.
"""

import copy
import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from onnx_shift.errors import OnnxShiftError, first_line
from onnx_shift.files import import_named
from onnx_shift.models.mobilenet import MobileNetV2
from onnx_shift.models.repvgg import STAGES as REPVGG_STAGES
from onnx_shift.models.repvgg import RepVGG
from onnx_shift.models.resnet import CIFAR_DEPTHS, IMAGENET_STAGES, CifarResNet, ImageNetResNet
from onnx_shift.models.vgg import PLANS, VGG

Factory = Callable[..., nn.Module]

MODELS: dict[str, Factory] = {
    **{name: partial(VGG, plan) for name, plan in PLANS.items()},
    **{f"resnet{depth}-cifar": partial(CifarResNet, depth) for depth in CIFAR_DEPTHS},
    **{f"resnet{depth}": partial(ImageNetResNet, depth) for depth in IMAGENET_STAGES},
    "mobilenet-v2": MobileNetV2,
    "mobilenet-v2-cifar": partial(MobileNetV2, small_images=True),
    **{name: partial(RepVGG, name) for name in REPVGG_STAGES},
    **{f"{name}-cifar": partial(RepVGG, name, small_images=True) for name in REPVGG_STAGES},
}


class ModelError(OnnxShiftError):
    """A model that is unknown, cannot be built, or does not fit the data."""


def build(name: str, *, num_classes: int, in_channels: int, width: float = 1.0) -> nn.Module:
    """Build the model `name` of the table, or what `package.module:factory` returns.

    A third-party factory is called with those of `num_classes`, `in_channels` and `width` that its signature
    takes. Raises ModelError when there is no such model or it cannot be built.
    """
    if ":" not in name:
        if name not in MODELS:
            raise ModelError(f"--model {name}: unknown; choose one of {', '.join(MODELS)}, or package.module:factory")
        return MODELS[name](num_classes=num_classes, in_channels=in_channels, width=width)
    factory = _import_factory(name)
    wanted: dict[str, int | float] = {"num_classes": num_classes, "in_channels": in_channels, "width": width}
    try:
        parameters = inspect.signature(factory).parameters.values()
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        names = {parameter.name for parameter in parameters}
        if takes_all:
            names.add("num_classes")
        model = factory(**{key: value for key, value in wanted.items() if key in names})
    except Exception as error:  # of the user's code
        raise ModelError(f"--model {name}: the factory failed ({first_line(error, kind=True)})") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"--model {name}: the factory returned {type(model).__name__}, not a torch module")
    return model


def _import_factory(name: str) -> Factory:
    factory: Factory = import_named(name, "--model")
    if not callable(factory):
        raise ModelError(f"--model {name}: is not callable")
    return factory


def initialise(model: nn.Module, *, uniform_batchnorm: bool) -> None:
    """Draw the weights as OpenLTH does: kaiming_normal for convolutions and linear layers, gamma ~ U(0, 1),
    beta 0.

    With `uniform_batchnorm` false gamma is 1. Draws from torch's global generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            if uniform_batchnorm:
                nn.init.uniform_(module.weight)
            else:
                nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def check_output(model: nn.Module, shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise ModelError unless the model can be copied and maps a batch of (C, H, W) images to (N, num_classes)
    scores, in evaluation and in training.
    """
    was_training = model.training
    _check_scores(model.eval(), shape, num_classes)  # by itself: lazy layers take their sizes
    model.train(was_training)
    try:
        copied = copy.deepcopy(model)
    except Exception as error:  # of the user's code
        raise ModelError(f"the model cannot be copied ({first_line(error, kind=True)})") from error
    _check_scores(copied.train(), shape, num_classes)


def _check_scores(model: nn.Module, shape: tuple[int, int, int], num_classes: int) -> None:
    mode = "training" if model.training else "evaluation"
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            scores = model(torch.zeros(2, *shape))
    except Exception as error:  # of the user's code
        raise ModelError(
            f"the model cannot take images of shape {shape} in {mode} ({first_line(error, kind=True)})"
        ) from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (2, num_classes):
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ModelError(
            f"the model's output in {mode} is {found} for two images, but the data has {num_classes} classes"
        )
