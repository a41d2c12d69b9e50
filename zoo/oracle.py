"""The fixed point of channel removal on a plain chain, found from the definition with numpy, sharing no code.

A chain is a list of layers; each multiplies by weights, adds a bias and may end in a Relu. A channel stays
when it varies and something that varies in the end reads it. A constant one is folded into the next bias, or,
where a padded layer reads a constant other than zero, shares one channel with all others of its kind. A layer
keeps one channel at least.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layer:
    """Weights (outputs, inputs, kernel height, width), bias (outputs,), and what surrounds them."""

    weight: np.ndarray
    bias: np.ndarray
    padded: bool
    relu: bool


def fewest_parameters(chain: list[Layer]) -> int:
    """Count the parameters that removal to the fixed point leaves, one channel at a time."""
    constant: list[float | None] = [None] * chain[0].weight.shape[1]
    before = [constant]
    for layer in chain:
        constant = [constant_output(layer, o, constant) for o in range(len(layer.bias))]
        before.append(constant)
    keep = len(chain[-1].bias)
    live = list(range(keep))
    total = 0
    for k in reversed(range(len(chain))):
        layer, entering = chain[k], before[k]
        varying = [o for o in live if before[k + 1][o] is None]
        read = [c for c in range(layer.weight.shape[1]) if any(layer.weight[o, c].any() for o in varying)]
        needed = [c for c in read if entering[c] is None]
        shared = [c for c in read if layer.padded and entering[c]]
        inputs = layer.weight.shape[1] if k == 0 else max(1, len(needed) + bool(shared))
        total += keep * (inputs * layer.weight[0, 0].size + 1)
        keep, live = inputs, needed
    return total


def constant_output(layer: Layer, o: int, entering: list[float | None]) -> float | None:
    """Return the value of output `o` if it is the same everywhere and for every input."""
    value = float(layer.bias[o])
    for c, known in enumerate(entering):
        weight = layer.weight[o, c]
        if not weight.any() or known == 0:
            continue
        if known is None or layer.padded:
            return None
        value += known * float(weight.sum())
    return max(value, 0.0) if layer.relu else value
