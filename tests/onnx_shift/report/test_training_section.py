"""The levels of a training."""

from pathlib import Path

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.report.evidence import gather_evidence
from onnx_shift.report.page import render_page
from tests.onnx_shift.report.examples import Links


def test_a_folder_of_a_training_shows_its_levels(tmp_path: Path) -> None:
    header = "level,round,ratio,kept,total,accuracy,onnx\n"
    rows = "0,0,1.0,800,800,0.91,0.onnx\n1,1,2.0,400,800,0.925,1.onnx\n2,2,4.0,200,800,0.9,2.onnx\n"
    (tmp_path / "levels.csv").write_text(header + rows)
    found = gather_evidence(tmp_path)
    page = render_page(found)
    assert "91.00% dense; best 92.50% at ratio 2; 90.00% at ratio 4." in page
    assert [row[3] for row in Links(page).csv["levels.csv"][1:]] == ["0.91", "0.925", "0.9"]
    assert page.count('class="moment"') == 2 * 3  # on a wide page, and on a phone
    assert found.origin == ["Read from levels.csv."]
    (tmp_path / "levels.csv").write_text(header + "0,0,0.5,800,800,0.91,level-00.onnx\n")
    with pytest.raises(OnnxShiftError, match=r"levels\.csv: no list of levels, as train writes it .a ratio below 1"):
        gather_evidence(tmp_path)
    (tmp_path / "levels.csv").write_text("level,ratio\n0,1\n")
    with pytest.raises(OnnxShiftError, match=r"levels\.csv: no list of levels, as train writes it .'kept'"):
        gather_evidence(tmp_path)
