"""The demo: its words, table and picture from given figures, and the whole path for real."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from onnx_shift.demo import demo_lines
from onnx_shift.errors import OnnxShiftError
from tests.onnx_shift.figures import FIGURES


def test_words_state_equality_switching_memory_and_load() -> None:
    text = "\n".join(demo_lines(FIGURES, Path("out")))
    assert "3 pruned models differ from their sparse ones by at most 6e-07 of the output's scale" in text
    assert "all 359 test images alike" in text
    assert "4.0 to 5.0 MB with the portfolio and one variant active, 8.2 MB with a session of each" in text
    assert "99.9% of the requests answered in time by switching, 60.0% by b alone" in text
    assert "accuracy 98.00% by switching, 90.00% by c alone" in text
    assert "out/report.html" in text


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
