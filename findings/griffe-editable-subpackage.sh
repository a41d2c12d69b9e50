#!/usr/bin/env bash
# A guess: what Python imports from an editable install, griffe (behind mkdocstrings) can load for the documentation.
# What happens: where setuptools' package-dir maps a subpackage to a folder outside its parent's, import works and
# griffe.load raises KeyError with the bare name. Seen with griffelib 2.4.1, setuptools 84.2.1.
# Met when documenting a Python package for ONNX models whose parts are folders of the repository's root.
# What to do: build the documentation from a normal install, not an editable one.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    griffelib==2.4.1 setuptools==84.2.1 || { echo "not run: the packages did not install"; exit 2; }

mkdir -p source/parent source/elsewhere
echo 'value = 1' >source/parent/__init__.py
echo 'value = 2' >source/elsewhere/__init__.py
cat >source/pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools==84.2.1"]
build-backend = "setuptools.build_meta"

[project]
name = "parent"
version = "1"

[tool.setuptools]
packages = ["parent", "parent.part"]
package-dir = { "parent" = "parent", "parent.part" = "elsewhere" }
TOML
venv/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --editable ./source

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import griffe


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("griffelib", "setuptools")), sep=", ")
import parent.part

print("Python imports parent.part, part.value is", parent.part.value)
print("griffe loads parent:", griffe.load("parent").path)
try:
    griffe.load("parent.part")
except KeyError as error:
    print("griffe.load('parent.part') raises KeyError:", error)
else:
    expect(False, "griffe loads the mapped subpackage")
PYTHON
