"""Which pair of a profile is worth being measured."""

import pytest

pytest.importorskip("torch")

from benchmarks.cascade import estimated_gain
from onnx_shift.portfolio.profile import Cascade, Latency, Profile, Timing, Variant


def variant(ms: float, accuracy: float, **cascade: Cascade) -> Variant:
    return Variant(Timing({1: Latency(ms), 16: Latency(16 * ms)}), 1, accuracy=accuracy, cascade=cascade)


def test_a_pair_is_compared_with_the_fastest_single_one_as_accurate() -> None:
    found = Profile(
        {
            "small": variant(1.0, 0.7, large=Cascade(0.5, 0.25, 0.9), medium=Cascade(0.5, 0.5, 0.8)),
            "medium": variant(2.0, 0.8),
            "large": variant(4.0, 0.9),
            "slow": variant(8.0, 0.95),
        }
    )
    assert estimated_gain(found, "small", "large") == 4.0 / (1.0 + 0.25 * 4.0)
    assert estimated_gain(found, "small", "medium") == 2.0 / (1.0 + 0.5 * 2.0)
