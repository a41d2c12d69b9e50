"""Tables of the page and their downloads."""

from onnx_shift.report.page import render_page
from tests.onnx_shift.report.examples import EVIDENCE, Links, _by_first


def test_every_figure_can_be_downloaded_as_a_table() -> None:
    tables = Links(render_page(EVIDENCE)).csv
    assert set(tables) == {
        *(
            "accuracy-latency.csv",
            "accuracy-size.csv",
            "variants.csv",
            "latencies.csv",
            "layers.csv",
            "replay.csv",
            "timeline.csv",
            "switches.csv",
        )
    }
    drawn = [f"{name}_{key}_ms" for name in ("policy", "smallest", "largest") for key in ("p50", "p95")]
    assert tables["timeline.csv"][0] == ["seconds", "requests_per_second", "variant", "accuracy", *drawn]
    assert tables["timeline.csv"][2] == ["1", "10", "half", "0.9", "1", "", "1", "1", "1", "20"]
    assert tables["switches.csv"] == [["seconds", "variant"], ["2.25", "tiny"]]
    assert [row[2] for row in tables["replay.csv"]] == ["within_objective", "0.75", "0.75", "0.75"]
    assert tables["accuracy-size.csv"][2] == ["half", "0.93", "900000"]
    assert tables["layers.csv"][1:3] == [["half", "conv,1", "64", "40"], ["half", "gone", "32", "0"]]
    variants = _by_first(tables["variants.csv"])
    assert variants["worse"]["verdict"] == "left out: half is nowhere worse"
    assert (variants["worse"]["noisy"], variants["tiny"]["noisy"]) == ("yes", "no")
    wanted = {
        "speedup": "5", "speedup_low": "4.5", "speedup_high": "5.5", "top5": "0.99", "macs": "30000",
        "peak_memory_mb": "2.5", "throughput": "250", "deflated_bytes": "15000",
    }  # fmt: skip
    assert {key: variants["tiny"][key] for key in wanted} == wanted
    latencies = [dict(zip(tables["latencies.csv"][0], row, strict=True)) for row in tables["latencies.csv"]]
    assert len(latencies) == 1 + 4 * 3  # four variants: two batches, and one on another provider
    keys = ("provider", "batch", "latency_ms", "p95_ms", "p99_ms", "throughput", "speedup_high", "memory_mb")
    assert [[row[key] for key in keys] for row in latencies if row["variant"] == "tiny"] == [
        ["CPUExecutionProvider", "1", "2", "4", "6", "500", "5.5", "1.5"],
        ["CPUExecutionProvider", "16", "8", "4", "6", "2000", "6", "1.5"],
        ["Other", "1", "2", "4", "6", "500", "5.5", "7"],
    ]


def test_every_table_and_every_group_that_scrolls_has_its_own_name() -> None:
    page = render_page(EVIDENCE)
    for opening, count in (
        ('<table aria-label="', 9),
        ('role="group" aria-label="Table: ', 9),
        ("<summary>", 8),
    ):
        names = [part.partition(">" if opening[-1] == '"' else "<")[0] for part in page.split(opening)[1:]]
        assert (len(names), len(set(names))) == (count, count)
