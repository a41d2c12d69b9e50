"""The documentation site lists every page, and its API page every public name."""

import importlib.util
import re
from pathlib import Path

import onnx_shift

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs" / "site.py")
assert _spec is not None and _spec.loader is not None
site = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site)


def test_the_navigation_lists_every_page() -> None:
    listed = set(re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed == pages | set(site.RENAMED.values()) | {"api.md", "results/README.md"}


def test_the_api_page_names_what_is_public_once() -> None:
    found = re.findall(r"^::: onnx_shift\.(.+)$", site.api_page(), re.MULTILINE)
    assert {name for name in found if "." not in name} == set(onnx_shift.__all__) - {"__version__"}
    assert "runtime.LatencyObjective" in found
    assert "runtime.ModelSwitcher" not in found


def test_links_of_the_readme_lead_inside_the_site() -> None:
    text = "[a](docs/python.md#prune) [b](CONTRIBUTING.md) [c](LICENSE) [d](https://example.com/docs/x.md)"
    assert site._inside(text) == (
        "[a](python.md#prune) [b](contributing.md) [c](LICENSE.txt) [d](https://example.com/docs/x.md)"
    )
