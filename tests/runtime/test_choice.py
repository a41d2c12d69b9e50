import pytest

from onnx_shift.runtime import Portfolio, PortfolioError, SwitchError, Variant
from onnx_shift.runtime.choice import check_same_signature, chosen_variant, nearest
from onnx_shift.runtime.portfolio import Signature


def portfolio(*sizes: int, shape: tuple[int | str | None, ...] = ("N", 3)) -> Portfolio:
    """Return variants named after their sizes, without content."""
    variants = [Variant(f"v{size}", size, size, size, "") for size in sizes]
    side = [Signature("x", "tensor(float)", list(shape))]
    return Portfolio(variants, {}, side, side)


def test_directions_stop_at_the_ends_and_names_are_looked_up() -> None:
    some = portfolio(10, 20, 30)
    assert chosen_variant("larger", some["v30"], some).name == "v30"
    assert chosen_variant("smaller", some["v30"], some).name == "v20"
    assert chosen_variant(portfolio(10)["v10"], some["v30"], some) is some["v10"]
    with pytest.raises(SwitchError, match="no variant 'v40'; there are: v10, v20, v30"):
        chosen_variant("v40", some["v30"], some)


def test_the_same_name_comes_before_the_nearest_size() -> None:
    other = portfolio(12, 20, 90)
    assert nearest(Variant("v20", 85, 85, 0, ""), other).name == "v20"
    assert nearest(Variant("v60", 95, 60, 0, ""), other).name == "v90"


def test_free_dimensions_may_be_called_otherwise_and_nothing_else_may_differ() -> None:
    check_same_signature(portfolio(1, shape=("batch", 3)), portfolio(1))
    for shape in ((1, 3), ("N", 4), ("N", 3, 1)):
        with pytest.raises(PortfolioError, match=r"Portfolio\(v1\): its inputs are x tensor\(float\)\["):
            check_same_signature(portfolio(1, shape=shape), portfolio(1))
