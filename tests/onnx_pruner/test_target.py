import platform
from pathlib import Path

import pytest

from onnx_shift.onnx_pruner import PruneError, prune
from onnx_shift.onnx_pruner.prune import open_source, prune_opened
from onnx_shift.onnx_pruner.target import (
    GATHER,
    GROUP,
    Fit,
    Layer,
    Table,
    fit_of,
    table_of,
    this_target,
)
from tests.networks import network
from tests.onnx_pruner.conftest import build, weight


@pytest.mark.parametrize("machine, flags, target", [
    ("aarch64", "", "arm64"), ("arm64", "", "arm64"), ("x86_64", "avx2 avx512f", "x86-64-avx512"),
    ("AMD64", "avx avx2", "x86-64-avx2"), ("x86_64", "sse2", "any"), ("riscv64", "avx2", "any"),
])  # fmt: skip
def test_the_processor_at_hand(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, target: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}")
    this_target.cache_clear()
    try:
        assert this_target() == target
    finally:
        this_target.cache_clear()


def test_no_channel_stays_for_alignment_on_arm() -> None:
    model = network(16, zeros=0.0, empty=7)
    arm, x86 = (prune(model, target=target).report for target in ("arm64", "any"))
    assert (arm.align, x86.align) == (1, 4)
    assert arm.parameters_after == prune(model, align=1).report.parameters_after < x86.parameters_after


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(PruneError) as caught:
        prune(network(16, zeros=0.0, empty=7), target="mips")
    assert str(caught.value) == "target=mips: there are this, x86-64-avx512, x86-64-avx2, arm64, any"


TIMES = {3: 3.0, 4: 3.0, 8: 2.0, 12: 3.8, 13: 6.0, 16: 4.0, 18: 6.0, 20: 6.0, 24: 6.0, 32: 8.0}
TABLE = Table("mine", "a processor", "1.0", 8, {"float32": {"3x3": {7: TIMES, 56: {**TIMES, 18: 12.0}}}})


@pytest.mark.parametrize("least, most, size, count", [
    (3, 32, 7, 8),  # eight take less time than fewer
    (9, 32, 7, 12),  # 12 takes as long as the whole 16, and is smaller
    (9, 10, 7, 9),  # the group that pays is not there
    (18, 32, 56, 24), (18, 32, 7, 18),  # by the image's size
    (33, 128, 7, 40), (1, 2, 500, 1),  # beyond what was measured
])  # fmt: skip
def test_the_fastest_count_is_kept_and_of_equals_the_smallest(least: int, most: int, size: float, count: int) -> None:
    assert TABLE.fastest((Layer("float32", "3x3", size),), least, most) == count


def test_layers_that_were_not_measured_are_told_apart() -> None:
    known = Layer("float32", "3x3", 7)
    assert TABLE.fastest((), 9, 32) is TABLE.fastest((known, Layer("float32", "5x5", 7)), 9, 32) is None
    assert Table("one", "", "", 8, {"float32": {"3x3": {56: TIMES}}}).fastest((known,), 9, 32) is None


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2"])
def test_every_table_has_both_kinds_of_counts(target: str) -> None:
    table = table_of(target)
    assert table is not None and table.block in (8, 16)
    kernels = [sizes for kernels in table.times_ms.values() for name, sizes in kernels.items() if name != GATHER]
    curves = [curve for sizes in kernels for curve in sizes.values()]
    assert curves and all({width % GROUP == 0 for width in curve} == {False, True} for curve in curves)


def test_where_pixels_are_many_avx512_computes_few_channels_as_they_are_and_elsewhere_in_blocks() -> None:
    text = """g (float[1,32,{s},{s}] x) => (float[1,32,{s},{s}] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w1)
        r = Relu(a)
        y = Conv<pads=[1,1,1,1]>(r, w2)
    }}"""
    weights = {"w1": weight(32, 32, 3, 3, dead=tuple(range(18, 32))), "w2": weight(32, 32, 3, 3, seed=1)}
    kept = {}
    for size in (56, 7):
        pruned = prune(build(text.format(s=size), weights, 17), target="x86-64-avx512", verify=False)
        kept[size] = pruned.report.layers[0].after[0]
    assert kept == {56: 18, 7: 20}


def test_what_computes_in_int8_goes_by_times_of_its_own() -> None:
    table = Table("mine", "", "", 8, {"float32": {"3x3": {7: TIMES}}, "int8": {"3x3": {7: {8: 1.0, 32: 4.0, 33: 8.0}}}})
    float32, int8 = (Layer(kind, "3x3", 7) for kind in ("float32", "int8"))
    assert (table.fastest((float32,), 9, 32), table.fastest((int8,), 9, 32)) == (12, 9)
    assert fit_of("x86-64-avx2", quantised=True).quantised


def test_a_network_to_be_quantised_keeps_no_channel_where_int8_has_no_blocks() -> None:
    model = network(16, zeros=0.0, empty=7)
    opened = open_source(model)
    kept = [
        prune_opened(opened, fit).report.parameters_after for fit in (fit_of("x86-64-avx2", quantised=True), Fit(1))
    ]
    assert kept[0] == kept[1]


def test_a_gather_must_save_more_than_it_costs_and_behind_a_layer_more_than_before_it() -> None:
    layer = Layer("float32", "3x3", 7)
    for cost_ms, picked, spread in [(0.01, 8, 8), (1.5, 8, 32), (3.5, 32, 32)]:  # 8 of 32 channels save 6 of 8 ms
        times = {"3x3": {7: TIMES}, GATHER: {7: {8: cost_ms / 4, 32: cost_ms}}}
        table = Table("mine", "a processor", "1.0", 8, {"float32": times})
        assert table.knows_gathers
        assert (table.picked(layer, 7, 32, 32, 5), table.spread(layer, 7, 32, 32, 5)) == (picked, spread)
        assert table.picked(layer, 7, 32, 32, 30) == 32
        assert table.spread(Layer("float32", "1x1", 7), 7, 32, 32, 5) == 32  # was not measured
    assert not TABLE.knows_gathers


def test_a_residual_stream_has_the_count_that_is_fastest_for_all_that_read_or_make_it() -> None:
    """Three useful channels: 3x3 layers of large images are fastest so, the 1x1 layer at the end with a block."""
    text = """g (float[1,3,56,56] x) => (float[1,16,56,56] y) {
        s = Conv<pads=[1,1,1,1]>(x, w0)
        p = Conv<pads=[1,1,1,1]>(s, w1)
        q = Conv<pads=[1,1,1,1]>(p, w2)
        t = Add(s, q)
        y = Conv(t, w3)
    }"""
    dead = tuple(range(3, 32))
    arrays = {"w0": weight(32, 3, 3, 3, dead=dead), "w1": weight(32, 32, 3, 3, dead=dead, seed=1)}
    arrays |= {"w2": weight(32, 32, 3, 3, dead=dead, seed=2), "w3": weight(16, 32, 1, 1)}
    report = prune(build(text, arrays, 17), target="x86-64-avx2", verify=False).report
    assert [layer.after[:2] for layer in report.layers] == [(3, 3), (3, 3), (3, 3), (16, 3)]
