"""Weights as compressed rows: only what is not zero, in the order in which the kernels read it."""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
_PLACES = 1 << 16  # a weight's place in its block is told by 16 bits


class Rows(NamedTuple):
    """The weights of a layer that are not zero, by block of input channels, output channel and place in the block.

    Weight i of (block b, output channel o) for i in rows[b * outputs + o] up to the next row's begin: `values[i]` is
    multiplied with what `places[i]` = (channel in block, kernel row, kernel column), counted through, reads.
    """

    values: Array  # float32 [weights]
    places: Array  # uint16 [weights]
    rows: Array  # int32 [blocks * outputs + 1]
    block: int  # input channels of a block


def compress(weights: Array, block: int) -> Rows:
    """Return float32 `weights` [outputs, inputs of a group, kernel rows, kernel columns] as rows in blocks of so many
    inputs.
    """
    outputs, inputs, *kernel = weights.shape
    taps = int(np.prod(kernel))
    block = max(1, min(block, inputs, _PLACES // taps))
    blocks = -(-inputs // block)
    output, channel, tap = np.nonzero(weights.reshape(outputs, inputs, taps))
    row = channel // block * outputs + output
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=blocks * outputs)
    begins = np.concatenate([[0], np.cumsum(counts)])
    return Rows(
        weights.reshape(outputs, inputs, taps)[output, channel, tap][order].astype(np.float32),
        (channel % block * taps + tap)[order].astype(np.uint16),
        begins.astype(np.int32),
        block,
    )


def expand(rows: Rows, shape: tuple[int, ...]) -> Array:
    """Return the dense weights of `shape` that `rows` were compressed from."""
    outputs, inputs, *kernel = shape
    taps = int(np.prod(kernel))
    row = np.repeat(np.arange(len(rows.rows) - 1), np.diff(rows.rows))
    dense = np.zeros((outputs, inputs, taps), np.float32)
    channel = row // outputs * rows.block + rows.places // taps
    dense[row % outputs, channel, rows.places % taps] = rows.values
    return dense.reshape(shape)
