"""The demo's picture."""

from pathlib import Path

from onnx_shift.views.picture import write_demo_picture
from tests.onnx_shift.figures import FIGURES


def test_picture_is_a_png_of_some_size(tmp_path: Path) -> None:
    write_demo_picture(FIGURES, tmp_path / "demo.png")
    content = (tmp_path / "demo.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 1200
