"""The kernels' tests need their library."""

import pytest

from onnx_shift.runtime import kernels
from tests.runtime.kernels.networks import random_convolution, rewritten, session


@pytest.fixture(autouse=True)
def _needs_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNX_SHIFT_KERNELS", raising=False)
    if reason := kernels.missing():
        pytest.skip(reason)


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each set of instructions that this processor has, in force."""
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", request.param)
    try:
        session(rewritten(random_convolution(0)[0]))
    except Exception as error:
        if "this processor has not" not in str(error):
            raise
        pytest.skip(f"the processor has no {request.param}")
    return request.param
