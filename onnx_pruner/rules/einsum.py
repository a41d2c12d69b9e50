"""Einsum: each axis of an operand has a label, and what happens to channels follows from where their label stands.

With a constant operand, channels whose label is summed over meet weights: a linear layer. A label that stands in the
output carries channels through; operands that share it are tied.
"""

from typing import cast

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Linear, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.graph.network import Array, Dimension
from onnx_shift.onnx_pruner.op import Channels, Mask, Op
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules.linear import linear_effect, nonzero_kernels

Term = tuple[str, ...]  # labels of the axes of an operand; those of an ellipsis are counted from its right end


def labels(equation: str, ranks: list[int]) -> tuple[list[Term], Term] | None:
    """The terms of the operands and of the output; None where they do not fit the ranks, or a label stands twice in one
    term.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        return None
    spread = [rank - len(text.replace("...", "")) for text, rank in zip(texts, ranks, strict=True)]
    if any((size != 0) if "..." not in text else size < 0 for text, size in zip(texts, spread, strict=True)):
        return None
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        right = "..." * ("..." in left) + "".join(sorted(one for one in set(letters) if letters.count(one) == 1))
    terms = [_term(text, size) for text, size in zip(texts, spread, strict=True)]
    output = _term(right, max(spread))
    return None if any(len(set(term)) < len(term) for term in (*terms, output)) else (terms, output)


def _term(text: str, spread: int) -> Term:
    before, dots, after = text.partition("...")
    ellipsis = [f"…{k}" for k in range(spread, 0, -1)] if dots else []
    return (*before, *ellipsis, *after)


def _labels(op: Op) -> tuple[list[Term], Term] | None:
    ranks = [op.rank(i) for i in op.inputs]
    return None if None in ranks else labels(str(op.attr("equation")), cast(list[int], ranks))


def free_sizes(op: Op, weight: int) -> list[Dimension]:
    """Sizes of the output's axes, but for the first, along which a weight is repeated."""
    found, shape = _labels(op), op.output_shape()
    if found is None or shape is None:
        return [None]
    terms, output = found
    return [shape[k] for k, label in enumerate(output) if k and label not in terms[weight]]


def einsum(op: Op) -> Effect:
    """Channels that meet weights, pass through, or are tied, by the place of their label."""
    carriers = [i for i in op.inputs if op.channels(i) is not None]
    constant = [i for i in op.inputs if op.constants.is_constant(op.name(i)) and op.constant(i) is not None]
    found = _labels(op)
    if found is None:
        return pin_all(op, "an Einsum that takes a diagonal, or of operands of unknown shape")
    terms, output = found
    if len(terms) == 2 and len(constant) == 1:
        data, weight = 1 - constant[0], constant[0]
        channels = op.channels(data)
        label = _summed(terms[data], terms[weight], output) if channels is None else terms[data][channels.axis]
        if label and label in terms[weight] and label not in output:
            return _layer(op, data, weight, label, terms, output)
    if not carriers:
        return Effect((None,))
    return _carried(op, carriers, terms, output)


def _summed(data: Term, weight: Term, output: Term) -> str:
    return next((label for label in data if label in weight and label not in output), "")


# --- a constant operand ----------------------------------------------------------------------------------------


def _layer(op: Op, data: int, weight: int, label: str, terms: list[Term], output: Term) -> Effect:
    """Channels `label` are summed over with weights; a label of the weight alone names the output's channels."""
    term, array = terms[weight], op.constant(weight)
    assert array is not None
    free = [one for one in output if one in term and one not in terms[data]]
    if not free:
        return _weighted_sum(op, data, weight, term.index(label), array)
    made = _leading(op, free, output)
    others = [k for k, one in enumerate(term) if one not in (label, made)]
    layout = (term.index(label), term.index(made), *others)
    kernel = nonzero_kernels(array.transpose(layout)).T[None]
    varied = any(term[k] in output for k in others)  # what a constant adds is no constant then
    plain = not op.constants.is_widened(op.name(weight))
    axis = output.index(made)
    linear = Linear(data, weight, None, kernel, True, varied, plain and not varied, plain, layout=layout,
                    trailing=len(output) - 1 - axis)  # fmt: skip
    channels = op.channels(data)
    if channels is not None and channels.count != kernel.shape[2]:
        return pin_all(op, "an Einsum that repeats a channel")
    return linear_effect(op, linear, axis)


def _leading(op: Op, free: list[str], output: Term) -> str:
    """Of several labels that could name the output's channels the one that a Transpose behind puts first."""
    readers = op.node.outputs[0].outputs
    if len(readers) == 1 and readers[0].op == "Transpose" and len(readers[0].attrs.get("perm", ())) == len(output):
        order = [output[axis] for axis in readers[0].attrs["perm"]]
        return str(next(label for label in order if label in free))
    return free[0]


def _weighted_sum(op: Op, data: int, weight: int, axis: int, array: Array) -> Effect:
    """Channels that are summed over with a weight each, with none in the output: those with zeros are not read."""
    channels = op.channels(data)
    if channels is None:
        return Effect((None,))
    if array.shape[axis] != channels.count:
        return pin_all(op, "an Einsum that repeats a channel")
    weighted = (np.moveaxis(array, axis, 0).reshape(channels.count, -1) != 0).any(axis=1)
    read = weighted & ~(channels.constant & (channels.value == 0))

    def rewrite(r: Rewriter) -> None:
        r.set_input(weight, np.compress(r.keep_in(data), array, axis=axis))

    if op.constants.is_widened(op.name(weight)):
        return pin_all(op, "weights stored in a narrower type")
    return Effect((None,), pins={data: "weights other than zero"}, reads={data: read}, rewrite=rewrite)


# --- channels that stand in the output -------------------------------------------------------------------------


def _carried(op: Op, carriers: list[int], terms: list[Term], output: Term) -> Effect:
    """Operands that share a label of the output are tied along it; a channel that one of them lacks is zero."""
    sizes = {i: cast(Channels, op.channels(i)).count for i in carriers}
    named = {i: terms[i][cast(Channels, op.channels(i)).axis] for i in carriers}
    candidates = [i for i in carriers if named[i] in output and _meets_its_like(op, named[i], sizes[i], terms, named)]
    if not candidates:
        return pin_all(op, "an Einsum that sums over the channels, or of operands whose channels cannot be told apart")
    chosen = max(candidates, key=lambda i: sizes[i])
    label, count = named[chosen], sizes[chosen]
    ties, operands, pins = [], [], {}
    zero = np.zeros(count, np.bool_)
    for i, term in enumerate(terms):
        channels = op.channels(i)
        if channels is not None and named[i] == label:
            ties.append(Tie.same(i, count))
            zero |= channels.constant & (channels.value == 0)
        elif channels is not None:
            pins[i] = "an Einsum along other channels"
        elif label in term and (array := op.constant(i)) is not None:
            operands.append(Operand(i, term.index(label)))
            zero |= _zeros(array, term.index(label))
    out = Channels.of(output.index(label), zero, np.zeros(count))
    return Effect((out,), tuple(ties), operands=tuple(operands), pins=pins)


def _meets_its_like(op: Op, label: str, count: int, terms: list[Term], named: dict[int, str]) -> bool:
    """Whether every operand with a label has its channels there, or is constant, and none repeats one channel."""
    for i, term in enumerate(terms):
        if label in term:
            known = named.get(i) == label or op.constants.is_constant(op.name(i))
            if not known or op.size(i, term.index(label)) not in (count, None if named.get(i) == label else count):
                return False
    return True


def _zeros(array: Array, axis: int) -> Mask:
    flat = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return np.asarray(~(flat != 0).any(axis=1))
