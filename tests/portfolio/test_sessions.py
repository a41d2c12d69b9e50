"""Sessions to measure with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_shift.portfolio.profiling import ProfileError, profile
from onnx_shift.portfolio.sessions import open_compiled, open_session
from onnx_shift.runtime import kernels
from tests.portfolio.models import QUICK, _linear
from tests.runtime.kernels.networks import three_convolutions


def test_a_fixed_batch_is_the_one_that_is_timed(tmp_path: Path) -> None:
    model = _linear(tmp_path / "m.onnx", batch="3")
    entry = profile([model], settings=replace(QUICK, batches=(1,))).variants["m"]
    assert list(entry.timing.latency) == [3]
    with pytest.raises(ProfileError, match="m: takes batches of 3 only; leave out batches"):
        profile([model], settings=replace(QUICK, batches=(1, 8)))


@pytest.mark.skipif(not kernels.available(), reason="the kernels are not built here")
def test_what_serves_is_measured_and_its_structure_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "onnx_shift.runtime.kernels.choose._in_turn", lambda sessions, _: [2.0, *[1.0] * (len(sessions) - 1)]
    )
    sparse = three_convolutions(0.95)
    onnx.save(sparse, tmp_path / "sparse.onnx")
    session, compiled = open_compiled(sparse, 1) or (None, None)
    assert compiled is not None and "onnx_shift" in {node.domain for node in compiled.graph.node}
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    plain = open_session(sparse.SerializeToString(), ["CPUExecutionProvider"], 1)
    expected, found = (one.run(None, {"x": x})[0] for one in (plain, session))
    assert np.abs(expected - found).max() < 1e-5 * np.abs(expected).max()
    structures = [
        profile([tmp_path / "sparse.onnx"], settings=replace(QUICK, kernels=on)).variants["sparse"].structure
        for on in (True, False)
    ]
    assert structures[0] != structures[1]


def test_a_dense_model_is_not_compiled() -> None:
    assert open_compiled(three_convolutions(0.0), 1) is None
