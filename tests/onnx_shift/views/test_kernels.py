from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_shift.views.kernels import choice_lines, choice_summary, choice_table, missing_lines


def choice(*chosen: bool) -> Any:
    layers = tuple(
        SimpleNamespace(name=f"c{i}", zeros=0.9, dense_ms=2.0, sparse_ms=0.5, chosen=one)
        for i, one in enumerate(chosen)
    )
    return SimpleNamespace(layers=layers, dense_ms=4.0, sparse_ms=1.0, changed=any(chosen))


@pytest.mark.parametrize(
    "chosen, said",
    [
        ((), "m.onnx: unchanged; no layer has half of its weights zero or more"),
        ((False,), "m.onnx: unchanged; no choice of layers would be faster here"),
        ((True, False), "m.onnx: 1 layer of 2 on our kernels, 4.00 -> 1.00 ms (4.00x)"),
    ],
)
def test_what_was_gained(chosen: tuple[bool, ...], said: str) -> None:
    assert choice_lines(choice(*chosen), Path("m.onnx"))[0] == said


def test_every_layer_is_shown() -> None:
    found = choice(True, False)
    assert [list(column.cells) for column in choice_table(found).columns][-1] == ["sparse", "dense"]
    assert choice_summary(found)["layers"][0]["sparse_ms"] == 0.5


def test_why_kernels_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "none")
    (line,) = missing_lines()
    assert line.endswith("run as dense ones here: switched off by ONNX_SHIFT_KERNELS")
