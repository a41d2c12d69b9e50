import platform
from pathlib import Path

import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.target import ALIGNMENTS, alignment_of, this_target
from tests.networks import network


@pytest.mark.parametrize("machine, flags, target", [
    ("aarch64", "", "arm64"), ("arm64", "", "arm64"), ("x86_64", "avx2 avx512f", "x86-64-avx512"),
    ("AMD64", "avx avx2", "x86-64-avx2"), ("x86_64", "sse2", "any"), ("riscv64", "avx2", "any"),
])  # fmt: skip
def test_the_processor_at_hand(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, target: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}")
    this_target.cache_clear()
    try:
        assert this_target() == target and alignment_of("this") == ALIGNMENTS[target]
    finally:
        this_target.cache_clear()


def test_no_channel_stays_for_alignment_on_arm() -> None:
    model = network(16, zeros=0.0, empty=7)
    arm, x86 = (prune(model, target=target).report for target in ("arm64", "x86-64-avx2"))
    assert (arm.align, x86.align) == (1, 4)
    assert arm.parameters_after == prune(model, align=1).report.parameters_after < x86.parameters_after


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(PruneError) as caught:
        prune(network(16, zeros=0.0, empty=7), target="mips")
    assert str(caught.value) == "target=mips: there are this, x86-64-avx512, x86-64-avx2, arm64, any"
