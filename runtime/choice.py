"""Which variant of which portfolio is to serve."""

from typing import NamedTuple

from onnx_shift.runtime.builder import Builder
from onnx_shift.runtime.errors import PortfolioError, SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Variant, no_variant


class Current(NamedTuple):
    """The portfolio and the variant of it that serve, read in one step: an update exchanges both."""

    portfolio: Portfolio
    variant: Variant


class Choice(NamedTuple):
    """A variant, and what builds it and the others of its portfolio."""

    variant: Variant
    builder: Builder


def chosen_variant(target: str | Variant, active: Variant, portfolio: Portfolio) -> Variant:
    """Return what `target`, a direction or a variant, means beside `active`. Raises SwitchError for an unknown name."""
    variants = portfolio.variants
    if target in ("smaller", "larger"):
        index = variants.index(active) + (1 if target == "larger" else -1)
        return variants[min(max(index, 0), len(variants) - 1)]
    return variant_named(target, portfolio)


def variant_named(target: str | Variant, portfolio: Portfolio) -> Variant:
    """Return the variant of the portfolio that has this name. Raises SwitchError where none has."""
    name = target.name if isinstance(target, Variant) else target
    if name not in portfolio:
        raise SwitchError(no_variant(name, portfolio))
    return portfolio[name]


def nearest(variant: Variant, portfolio: Portfolio) -> Variant:
    """Return the variant of the same name, where there is none the nearest by the bytes of its non-zero weights."""
    if variant.name in portfolio:
        return portfolio[variant.name]
    return min(portfolio, key=lambda other: abs(other.nonzero_bytes - variant.nonzero_bytes))


def check_same_signature(new: Portfolio, old: Portfolio) -> None:
    """Refuse a portfolio that does not take and give what the old one does; free dimensions may be called otherwise."""
    for kind, ours, theirs in (("inputs", old.inputs, new.inputs), ("outputs", old.outputs, new.outputs)):
        if [value.comparable for value in ours] != [value.comparable for value in theirs]:
            found, wanted = (", ".join(f"{v.name} {v.type}{v.shape}" for v in values) for values in (theirs, ours))
            raise PortfolioError(f"{new!r}: its {kind} are {found}, not {wanted} of the portfolio that serves")
