"""Tables and notes in the terminal."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from onnx_shift.portfolio.profile import Profile
from onnx_shift.views.tables import cascade_table, demo_table, profile_notes, profile_tables, show_bytes, show_count
from tests.onnx_shift.figures import FIGURES
from tests.onnx_shift.models import shift


def test_profile_on_real_images_writes_json_and_tables(models: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    options = ["--data", "digits", "--seconds", "0.05", "--batch", "1", "--batch", "4", "-o", output]
    done = shift("profile", *models, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert list(found["variants"]) == ["dense", "small"]
    assert found["dense"] == "dense"
    entry = found["variants"]["small"]
    assert entry["images"] == 359
    assert entry["classes"] == 10
    assert 0 <= entry["accuracy"] <= entry["top5"] <= 1
    assert entry["switch_ms"] > 0
    assert entry["memory_mb"] is None or entry["memory_mb"] < 50
    lines = done.stdout.splitlines()
    # Eighty columns on a quiet machine; a spread over tens of milliseconds has more digits.
    assert max(len(line) for line in lines if "small" in line) <= 92
    assert sum("small" in line for line in lines) >= 4  # sizes, a row for each batch size, and memory
    assert "accuracy: of 359 test images" in lines


def test_profile_as_json_alone_on_stdout(models: list[Path]) -> None:
    done = shift("profile", models[1], "--seconds", "0.01", "--json")
    assert json.loads(done.stdout)["variants"]["small"]["macs"] == 16 * 9 * 64 + 160


def test_a_narrow_terminal_breaks_lines_and_cuts_no_figure(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = shift("inspect", models[0]).stdout
    monkeypatch.setenv("COLUMNS", "30")
    assert shift("inspect", models[0]).stdout == wide
    assert "64×1×3×3     576  50.00%  32 of 64" in wide


def _profile(*, switch_ms: float | None, variants: int = 2) -> Profile:
    def measured(p50: float, noisy: bool, memory: float) -> dict[str, Any]:
        latency = {"p50": p50, "p95": 2 * p50, "p99": 3 * p50, "spread": 0.234, "noisy": noisy}
        return {
            "latency_ms": {"1": latency}, "speedup": {"1": {"median": 1.5, "low": 1.25, "high": 12.75}},
            "throughput": 1234.5, "memory_mb": memory, "peak_memory_mb": 2 * memory,
        }  # fmt: skip

    entry = {
        "ratio": 256.04, "accuracy": 0.9123, "top5": 0.9876, "parameters": 123456789, "macs": 123456789,
        "file_bytes": 123456789, "deflated_bytes": 123456789, "switch_ms": switch_ms, "images": 359,
        "providers": {"CUDAExecutionProvider": measured(0.0123, True, 33.3)},
    }  # fmt: skip
    return Profile.from_dict({
        "machine": {
            "processor": "P", "cores": 2, "onnxruntime": "1.2", "threads": 1, "date": "2024-05-06",
            "providers": ["CPUExecutionProvider", "CUDAExecutionProvider"],
        },
        "baseline": {"name": "dense"},
        "variants": {f"level-0{n}[v2]": entry | measured(0.777, False, 44.4) for n in range(variants)},
    })  # fmt: skip


def test_tables_show_all_that_was_measured_in_eighty_columns() -> None:
    console = Console(width=80, markup=False, force_terminal=False)
    with console.capture() as captured:
        for table in profile_tables(_profile(switch_ms=1.23)):
            console.print(table)
    text = captured.get()
    assert text.count("level-01[v2]") == 5  # what it is; for each provider how fast, and what it takes
    figures = ["98.76%", "88.8 MB", "66.6 MB", "~0.0123", "0.777", "23%", "1.25–12.75", "1,234", "1.2 ms"]
    assert [figure for figure in figures if figure not in text] == []
    assert "CUDAExecutionProvider" in text


def test_a_table_says_whom_a_variant_asks_and_what_that_gains() -> None:
    asks = {"cascade": {"large": {"margin": 1.2345, "share": 0.125, "accuracy": 0.9}}}
    variants = {
        "small": {"file_bytes": 1, "latency_ms": {"1": {"p50": 1.0}}} | asks,
        "large": {"file_bytes": 1, "latency_ms": {"1": {"p50": 4.0}}},
    }
    table = cascade_table(Profile.from_dict({"variants": variants}))
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["small"], ["large"], ["1.23"], ["12.50%"], ["90.00%"], ["2.67"]]


def test_notes_say_what_signs_mean_and_why_no_switch_was_timed() -> None:
    notes = "\n".join(profile_notes(_profile(switch_ms=1.23)))
    assert "~: rounds lay far apart even when repeated: level-00[v2], level-01[v2]" in notes
    assert "switch" not in notes
    assert "switch: not measured, as their inputs or outputs differ" in profile_notes(_profile(switch_ms=None))
    single = profile_notes(_profile(switch_ms=None, variants=1))
    assert "switch: not measured, as a single model has none to switch from" in single


def test_table_fits_eighty_columns_and_marks_what_was_packed() -> None:
    console = Console(width=80, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(demo_table(Profile.from_dict(FIGURES["profile"]), FIGURES["dropped"]))
    rows = [line.split() for line in captured.get().splitlines() if line.split()[:1] in (["a"], ["b"], ["c"])]
    assert rows[0][:4] == ["a", "1", "99.00%", "250"]
    assert [row[-1] for row in rows] == ["1.00×", "✓", "✓"]
    assert "~0.5" in rows[2]


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 B"), (999_600, "1 MB"), (1234, "1.23 kB"), (5.6e9, "5.6 GB"), (0, "0 B")]
)
def test_sizes_are_shown_in_units_of_a_thousand(size: float, text: str) -> None:
    assert show_bytes(size) == text


def test_counts_are_shown_short() -> None:
    assert [show_count(count) for count in (12, 1234, 5_320_000, 4.1e9)] == [
        "12",
        "1.23 k",
        "5.32 M",
        "4.1 G",
    ]
