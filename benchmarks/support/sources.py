"""Which source files a benchmark depends on: those it imports, directly or not, wherever the import stands.

A result is out of date when one of them changes, and only then. A training is no source: it is known by its recipe.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PARTS = (
    "exporter",
    "models",
    "onnx_pruner",
    "portfolio",
    "runtime",
    "serving",
)  # folders of the root that are installed below onnx_shift


def files_behind(file: Path, root: Path) -> list[Path]:
    """Return `file` and all files of the checkout at `root` that it imports, sorted."""
    found: set[Path] = set()
    left = [file]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += [source for name in _imported(path) for source in _sources(name, root)]
    return sorted(found)


def _imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports; of `from a import b` both a and a.b, since b may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _sources(module: str, root: Path) -> Iterator[Path]:
    """Yield the file of a module of this checkout and the packages it lies in; nothing for other modules."""
    names = module.split(".")
    if names[0] == "onnx_shift" and len(names) > 1 and names[1] in PARTS:
        names = names[1:]
    elif names[0] not in ("onnx_shift", "benchmarks", "tests", "zoo"):
        return
    for length in range(1, len(names) + 1):
        stem = root.joinpath(*names[:length])
        yield from (path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists())
