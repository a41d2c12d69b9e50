"""The terminal report of `prune`."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from onnx_shift.onnx_pruner.report import Kept, LayerChange, LeftOut, PruneReport
from onnx_shift.views.prune import show, why_hardly_smaller

LAYER = LayerChange("first", "Conv", (8, 3, 1, 1), (6, 3, 1, 1), 24, 18, 240, 180)
REPORT = PruneReport(
    "m.onnx", 1, unchanged=False, layers=(LAYER,),
    parameters_before=24, parameters_after=18, parameters_after_align_1=18,
    macs_before=240, macs_after=180, bytes_before=2_000_000, bytes_after=1_000_000, batch_norms_fused=1,
    channels_before=8, channels_removed=2, nodes_before=3, nodes_after=2,
    kept=(Kept("first", (4, 5, 7), "it is a graph output"),),
)  # fmt: skip


def shown(report: PruneReport, explain: bool) -> str:
    text = io.StringIO()
    show(report, Path("out.onnx"), Console(file=text, width=100), explain)
    return text.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        "8×3×1×1",
        "24 → 18",
        "75%",
        "2.00× smaller",
        "removed 2 of 8 channels, folded 1 BatchNormalization",
        "not verified",
    ],
)
def test_a_changed_layer_the_totals_and_what_was_checked_are_told(words: str) -> None:
    assert words in shown(REPORT, explain=False)


def test_a_finished_job_is_told_whatever_there_was_nothing_of() -> None:
    nothing = replace(REPORT, layers=(), parameters_before=3, parameters_after=0, macs_before=0, macs_after=0, kept=())
    text = shown(nothing, explain=True)
    assert "0 → 0              unchanged" in text
    assert "100.00% fewer" in text
    assert "no zero or dead channel stayed" in text
    more = shown(replace(nothing, macs_after=5, bytes_before=0, parameters_before=0), explain=False)
    assert "0 → 5              more" in more


def test_layers_that_were_not_looked_at_are_told_before_it_is_said_that_nothing_stayed() -> None:
    left = LeftOut(tuple(f"layer {k}" for k in range(7)), 4480, "in the body of If 'y'")
    text = " ".join(shown(replace(REPORT, kept=(), left_out=(left,)), explain=True).split())
    told = (
        "not looked at: 7 layers (4,480 parameters), in the body of If 'y': layer 0, layer 1, layer 2, layer 3, layer 4"
    )
    assert f"{told} and 2 more" in text
    assert "in the other layers no zero or dead channel stayed" in text


def test_with_explain_what_stayed_is_told_with_its_reason() -> None:
    assert "it is a graph output" not in shown(REPORT, explain=False)
    row = next(line for line in shown(REPORT, explain=True).splitlines() if line.endswith("it is a graph output"))
    assert row.split()[:2] == ["first", "3"]


def test_layers_that_read_by_a_gather_are_counted_and_with_explain_named() -> None:
    report = replace(REPORT, narrowed=("entry", "exit"))
    assert "layers that read or make some channels only, by a Gather: 2" in shown(report, explain=False)
    assert "a Gather picks or spreads channels at: entry, exit (--align 1 adds none)" in shown(report, explain=True)
    assert "Gather" not in shown(REPORT, explain=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters_after": 12, "parameters_after_align_1": 12}, ""),
        ({"notes": ("90% of the weights are zero, 0 of 8 channels are empty",)}, ""),
        ({"parameters_after_align_1": 12}, "channels stay for alignment; next: onnx-shift prune --align 1"),
        ({"left_out": (LeftOut(("c",), 20, "ConvInteger computes in integers"),)}, "then onnx-shift quantize"),
        ({"left_out": (LeftOut(("c",), 20, "in the body of If 'i'"),)}, "(in the body of If 'i'); next: see --explain"),
        ({}, "zero or dead channels stayed; next: --explain"),
        ({"kept": ()}, "hardly a channel is without weights; next: train for zeros"),
    ],
)
def test_one_line_says_why_a_model_hardly_shrank(change: dict[str, Any], words: str) -> None:
    same = {"parameters_before": 24, "parameters_after": 24, "parameters_after_align_1": 24}
    line = why_hardly_smaller(replace(REPORT, **(same | change)))
    assert line.endswith(words) or words in line
    assert bool(line) == bool(words) and "\n" not in line
