"""The code in README.md and docs runs, and what the pages say of names and files is true."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_shift
from onnx_shift import runtime
from onnx_shift.portfolio.pack import pack
from tests.networks import network

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
_QUOTED = re.compile(r"# ([\w/]+\.py)\n")  # the first line of what is quoted from a file


def blocks_of(page: Path) -> list[re.Match[str]]:
    return list(_BLOCK.finditer(page.read_text()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with what the examples take for granted: two small models and their portfolio."""
    for name, empty, accuracy in (("dense", 0, "0.9"), ("sparse", 16, "0.8")):
        model = network(32, zeros=0, empty=empty)
        model.metadata_props.add(key="onnx_shift.accuracy", value=accuracy)
        onnx.save(model, tmp_path / f"{name}.onnx")
    pack([tmp_path / "dense.onnx", tmp_path / "sparse.onnx"], tmp_path / "portfolio.zip")
    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(tmp_path / "graphs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, folder: Path) -> None:
    names = {"__name__": page.stem, "batch": np.zeros((2, 3, 8, 8), np.float32)}
    ran = 0
    for block in blocks_of(page):
        if block["reason"] is None and not _QUOTED.match(block["code"]):
            line = page.read_text()[: block.start("code")].count("\n")
            exec(compile("\n" * line + block["code"], page, "exec"), names)
            ran += 1
    assert ran > 0, f"{page.name}: none of its code is run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_quoted_from_a_file_stands_there(page: Path) -> None:
    for block in blocks_of(page):
        if quoted := _QUOTED.match(block["code"]):
            assert block["code"][quoted.end() :] in (ROOT / quoted[1]).read_text(), f"{page.name}: {quoted[1]}"


def test_every_public_name_is_described() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    names = {*onnx_shift.__all__, *runtime.__all__} - {"__version__"}
    assert [name for name in sorted(names) if f"`{name}" not in page and f".{name}`" not in page] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "examples/README.md"], ids=lambda p: p.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        if link.startswith("http"):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name}: {link}"
        if heading and target.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}
            assert heading in anchors, f"{page.name}: {link}"
