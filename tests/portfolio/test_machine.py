"""Where is measured: its name, and what does not work on it."""

from pathlib import Path

import pytest

from onnx_shift.ort import CPU
from onnx_shift.portfolio.machine import check_providers, machine, processor
from onnx_shift.portfolio.profile import ProfileError


def test_a_board_is_named_where_the_kernel_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0", "/proc/cpuinfo": "model name : Fast\n"}

    def read(path: Path) -> str:
        if str(path) not in texts:
            raise FileNotFoundError
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert processor() == "Raspberry Pi 5 Model B Rev 1.0"
    del texts["/proc/device-tree/model"]
    assert processor() == "Fast"


def test_a_machine_states_what_was_measured_with() -> None:
    found = machine([CPU], 3, "2026-01-02")
    assert (found.providers, found.threads, found.date) == ((CPU,), 3, "2026-01-02")


def test_the_provider_that_is_missing_is_named() -> None:
    with pytest.raises(ProfileError, match="provider Abacus: not in this onnxruntime, which has"):
        check_providers([CPU, "Abacus"])
