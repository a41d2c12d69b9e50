"""Peers are measured where they are installed, and nowhere taken for tools that fail."""

from pathlib import Path

import pytest

from benchmarks import peers
from onnx_shift.errors import OnnxShiftError


def test_a_peer_that_is_not_installed_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "torch_pruning" else object())
    with pytest.raises(OnnxShiftError, match=r"^torch_pruning is not installed: pip install .*\[bench\]"):
        peers.measure(tmp_path)
