"""Sessions to measure with."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_shift.portfolio.profiling import ProfileError, profile
from tests.portfolio.models import QUICK, _linear


def test_a_fixed_batch_is_the_one_that_is_timed(tmp_path: Path) -> None:
    model = _linear(tmp_path / "m.onnx", batch="3")
    entry = profile([model], settings=replace(QUICK, batches=(1,))).variants["m"]
    assert list(entry.timing.latency) == [3]
    with pytest.raises(ProfileError, match="m: takes batches of 3 only; leave out batches"):
        profile([model], settings=replace(QUICK, batches=(1, 8)))
