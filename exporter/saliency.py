"""Scores from gradients at initialisation: SNIP, GraSP, SynFlow and NTK-SAP."""

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from onnx_shift.exporter.masks import Scores
from onnx_shift.exporter.scoring import Scoring

SCORING_BATCHES = 8
GRASP_TEMPERATURE = 200.0  # softens the class scores, as in the authors' code
NTK_PERTURBATION = 0.01  # standard deviation of the weights' disturbance


def snip(scoring: Scoring) -> Scores:
    """|w · dL/dw| on training batches (Lee, Ajanthan, Torr, ICLR 2019)."""
    weights = scoring.weights()
    gradients = _gradients(scoring, temperature=1.0)
    return {name: (weight.detach() * gradients[name]).abs() for name, weight in weights.items()}


def grasp(scoring: Scoring) -> Scores:
    """w · (H g): what removal would take from the gradient's norm (Wang, Zhang, Grosse, ICLR 2020)."""
    weights = scoring.weights()
    gradients = _gradients(scoring, temperature=GRASP_TEMPERATURE)
    flow = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for images, labels in scoring.batches(SCORING_BATCHES):
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            loss = F.cross_entropy(scoring.model(images) / GRASP_TEMPERATURE, labels)
        with_graph = _grad(loss, weights.values(), create_graph=True)
        product = torch.stack([(g * gradients[name]).sum() for name, g in zip(weights, with_graph, strict=True)]).sum()
        for name, part in zip(weights, _grad(product, weights.values()), strict=True):
            flow[name] += part
    return {name: weight.detach() * flow[name] for name, weight in weights.items()}


def synflow(scoring: Scoring) -> Scores:
    """|w · dR/dw|, R the sum of outputs for an image of ones through absolute weights.

    Needs no data (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020). In float64: R grows with the depth, beyond
    float32 for fifty layers.
    """
    model = copy.deepcopy(scoring.model).double().eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU6):
            module.max_val = math.inf  # R grows beyond 6, and what is cut off there has no gradient
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.abs_()
    weights = [model.get_parameter(name) for name in scoring.mask]
    ones = torch.ones(1, *scoring.image_shape, dtype=torch.float64, device=scoring.device)
    gradients = _grad(model(ones).sum(), weights)
    return {
        name: (weight.detach() * gradient).abs()
        for name, weight, gradient in zip(scoring.mask, weights, gradients, strict=True)
    }


def ntk_sap(scoring: Scoring) -> Scores:
    """|dD/dm|, D the change of the outputs when the weights are disturbed, m the mask.

    D stands in for the trace norm of the neural tangent kernel; each call draws new weights and new Gaussian
    images, so scores do not hang on one initialisation (Wang, Li, Sun, ICLR 2023).
    """
    scoring.redraw()
    weights = {name: weight.detach() for name, weight in scoring.weights().items()}
    masks = {name: kept.to(weights[name]).requires_grad_() for name, kept in scoring.mask.items()}
    shape = (scoring.recipe.batch_size, *scoring.image_shape)
    images = torch.randn(shape, generator=scoring.generator).to(scoring.device)
    disturbed = {
        name: weight + NTK_PERTURBATION * torch.randn(weight.shape, generator=scoring.generator).to(weight)
        for name, weight in weights.items()
    }
    scoring.model.train()
    plain = functional_call(scoring.model, {name: masks[name] * weights[name] for name in masks}, (images,))
    moved = functional_call(scoring.model, {name: masks[name] * disturbed[name] for name in masks}, (images,))
    change = (plain - moved).square().sum()
    gradients = _grad(change, masks.values())
    return {name: gradient.abs() for name, gradient in zip(masks, gradients, strict=True)}


def _grad(value: Tensor, tensors: Iterable[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradients of `value`, zero for what it does not depend on: a layer that the network does not use."""
    return torch.autograd.grad(
        value, list(tensors), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def _gradients(scoring: Scoring, temperature: float) -> dict[str, Tensor]:
    """dL/dw summed over the scoring batches, in training mode."""
    weights = scoring.weights()
    scoring.model.train()
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for images, labels in scoring.batches(SCORING_BATCHES):
        loss = F.cross_entropy(scoring.model(images) / temperature, labels)
        for name, part in zip(weights, _grad(loss, weights.values()), strict=True):
            sums[name] += part
    return sums
