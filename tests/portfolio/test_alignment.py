import pytest

from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.target import Fit
from onnx_shift.portfolio import alignment
from onnx_shift.portfolio.latency import Comparison
from onnx_shift.portfolio.profile import Latency
from tests.networks import network


@pytest.mark.parametrize("times_ms, chosen", [
    ({"1": 1.0, "4": 2.0, "default": 2.0}, "--align 1"), ({"1": 2.0, "4": 1.0, "default": 1.5}, "--align 4"),
    ({"1": 1.01, "4": 1.0, "default": 1.0}, "--align 1"),
    ({"1": 3.0, "4": 2.0, "default": 1.0}, "the default alignment"),
])  # fmt: skip
def test_the_fastest_is_kept_and_of_equals_the_smallest(
    monkeypatch: pytest.MonkeyPatch, times_ms: dict[str, float], chosen: str
) -> None:
    asked: list[str] = []
    pruned: list[Fit] = []
    default = Fit(20)  # none of those that are always tried
    prune_opened = alignment.prune_opened
    monkeypatch.setattr(alignment, "fit_of", lambda target: default)
    monkeypatch.setattr(
        alignment, "prune_opened", lambda opened, fit: (pruned.append(fit), prune_opened(opened, fit))[1]
    )

    def compare(calls: dict[str, object], baseline: str, **options: object) -> Comparison:
        asked.extend(calls)
        return Comparison({name: Latency(times_ms[name]) for name in calls}, {})

    monkeypatch.setattr(alignment, "compare_latency", compare)
    model = network(32, zeros=0.0, empty=23)
    result = alignment.prune_fastest(model)
    assert pruned == [*map(Fit, alignment.ALIGNMENTS), default]  # once each, the chosen one too
    assert result.report.verified
    assert asked == ["1", "4", "default"]  # 8 and 16 leave what 4 leaves
    align = {"--align 1": 1, "--align 4": 4}.get(chosen, 20)
    assert result.report.parameters_after == prune(model, align=align).report.parameters_after
    assert result.report.notes[-1].startswith(f"{chosen} is fastest here")


def test_what_was_measured_stands_in_the_report() -> None:
    result = alignment.prune_fastest(network(16, zeros=0.0, empty=7), seconds=0.02)
    assert "1: " in result.report.notes[-1] and " ms" in result.report.notes[-1]
