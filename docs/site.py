"""Gather the pages of the documentation site: `make site` runs this, then zensical.

README, CONTRIBUTING, CHANGELOG and docs become one folder, build/site, with links that lead inside it, and a page
api.md that names what is public; mkdocstrings fills it from the docstrings. It reads them from a copy of the packages,
build/api, laid out as they are installed.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES, PACKAGES = ROOT / "build" / "site", ROOT / "build" / "api"
RENAMED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")


def gather() -> None:
    """Write build/site and build/api anew."""
    for folder in (PAGES, PACKAGES):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(ROOT / "examples", PAGES / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", PAGES / "LICENSE.txt")
    for name, page in RENAMED.items():
        (PAGES / page).write_text(_inside((ROOT / name).read_text()))
    for path in PAGES.glob("*.md"):
        path.write_text(path.read_text().replace("](../", "]("))
    examples = PAGES / "examples" / "README.md"  # what lay in docs/ lies beside its folder
    examples.write_text(examples.read_text().replace("](../docs/", "](../"))
    (PAGES / "api.md").write_text(api_page())
    shutil.copytree(ROOT / "onnx_shift", PACKAGES / "onnx_shift")
    for part in ("exporter", "models", "onnx_pruner", "portfolio", "runtime", "serving"):
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, PACKAGES / "onnx_shift" / part)


def _inside(text: str) -> str:
    """Return a page of the root with its links as they are in the site."""

    def link(match: re.Match[str]) -> str:
        path = match[2].removeprefix("docs/")
        return f"{match[1]}{ {**RENAMED, 'LICENSE': 'LICENSE.txt'}.get(path, path) }{match[3]}"

    return _LINK.sub(link, text)


def api_page() -> str:
    """Return the page that mkdocstrings fills: every public name, where it is defined, in order of use."""
    import onnx_shift
    from onnx_shift import runtime

    parts = ["# API\n", "Every public name, from its docstring. [Examples and units](python.md).\n"]
    seen: set[str] = set()
    for module in (onnx_shift, runtime):
        parts.append(f"## {module.__name__}\n")
        for name in module.__all__:
            found = getattr(module, name)
            home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', name)}"
            if name.startswith("_") or home in seen:
                continue
            seen.add(home)
            parts.append(f"::: {module.__name__}.{name}\n    options:\n      heading_level: 3\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    gather()
