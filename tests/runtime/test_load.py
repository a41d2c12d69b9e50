"""What a policy sees."""

from dataclasses import replace

from onnx_shift.runtime.load import Load
from onnx_shift.runtime.portfolio import Variant

VARIANTS = tuple(Variant(name, size, size, 0, "") for name, size in (("small", 100), ("large", 400)))


def test_the_next_larger_variant_is_by_size_and_the_largest_has_none() -> None:
    load = Load(1.0, 0.5, 10, 10, 0, 0.1, (5.0,), active=VARIANTS[0], variants=VARIANTS)
    assert load.larger is VARIANTS[1]
    assert replace(load, active=VARIANTS[1]).larger is None
