"""The demo: its words, table and picture from given figures, and the whole path for real."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console

from onnx_shift.demo import demo_lines
from onnx_shift.errors import OnnxShiftError
from onnx_shift.views.picture import write_demo_picture
from onnx_shift.views.tables import demo_table, show_bytes, show_count


def _entry(ratio: float, accuracy: float, latency: float, size: int) -> dict[str, Any]:
    return {
        "ratio": ratio, "accuracy": accuracy, "parameters": size // 4, "file_bytes": size, "switch_ms": 2.5,
        "deflated_bytes": size // 3, "latency_ms": {"1": {"p50": latency, "noisy": ratio == 4}},
        "speedup": {"1": {"median": 2 / latency, "low": 1.0, "high": 4.0}},
    }  # fmt: skip


def _run(accuracy: float, within: float) -> dict[str, Any]:
    rows = [{"seconds": s, "requests_per_second": 9.0, "p95_ms": 5.0, "variant": "b"} for s in range(3)]
    return {
        "accuracy": accuracy,
        "within_objective": within,
        "intervals": rows,
        "switched": [],
        "switches": 1,
    }


FIGURES: dict[str, Any] = {
    "profile": {
        "dense": "a",
        "variants": {
            "a": _entry(1, 0.99, 2.0, 1_000_000), "b": _entry(2, 0.985, 1.0, 300_000), "c": _entry(4, 0.9, 0.5, 20_000),
        },
    },
    "dropped": {"a": "b is nowhere worse"},
    "equality": {"models": 3, "largest_difference": 6.4e-7, "images": 359, "changed": 0},
    "memory": {"all_sessions_mb": 8.25, "portfolio_mb": {"b": 5.0, "c": 4.0}},
    "replay": {
        "variants": ["c", "b"], "objective_ms": 10.0, "largest_serves_per_second": 8.0,
        "runs": {"policy": _run(0.98, 0.999), "smallest": _run(0.9, 1.0), "largest": _run(0.985, 0.6)},
    },
}  # fmt: skip


def test_words_state_equality_switching_memory_and_load() -> None:
    text = "\n".join(demo_lines(FIGURES, Path("out")))
    assert "3 pruned models differ from their sparse ones by at most 6e-07 of the output's scale" in text
    assert "all 359 test images alike" in text
    assert "4.0 to 5.0 MB with the portfolio and one variant active, 8.2 MB with a session of each" in text
    assert "99.9% of the requests answered in time by switching, 60.0% by b alone" in text
    assert "accuracy 98.00% by switching, 90.00% by c alone" in text
    assert "out/report.html" in text


def test_table_fits_eighty_columns_and_marks_what_was_packed() -> None:
    console = Console(width=80, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(demo_table(FIGURES))
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


def test_picture_is_a_png_of_some_size(tmp_path: Path) -> None:
    write_demo_picture(FIGURES, tmp_path / "demo.png")
    content = (tmp_path / "demo.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 1200


def test_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    from onnx_shift.demo import run_demo

    for folder in (tmp_path / "file", tmp_path / "file" / "demo"):
        with pytest.raises(OnnxShiftError, match=rf"{folder}: cannot be made \(.*/file is no folder\)"):
            run_demo(folder, Console(quiet=True), date="2024-05-06")


@pytest.mark.slow
def test_whole_path_on_real_digits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onnx_shift", "demo", "-o", str(tmp_path / "demo"), "--levels", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "demo"
    found = json.loads((folder / "demo.json").read_text())
    assert found["equality"]["changed"] == 0
    assert found["equality"]["largest_difference"] <= 1e-4
    assert [round(entry["ratio"]) for entry in found["profile"]["variants"].values()] == [1, 2, 4, 8]
    assert min(entry["accuracy"] for entry in found["profile"]["variants"].values()) > 0.8
    with zipfile.ZipFile(folder / "portfolio.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(folder / "unzipped")
    packed = sorted((folder / "unzipped").glob("*/model.onnx"))
    assert len(packed) == 4 - len(found["dropped"])
    for path in packed:
        onnx.checker.check_model(path)
    assert {"report.html", "demo.png", "profile.json", "replay.json"} <= {path.name for path in folder.iterdir()}
    assert "level-03" in done.stdout
