"""The direction of imports between the parts, and what the device must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAVES = {"checks", "claims", "errors", "files", "ort", "version"}

# part -> parts it may import, besides itself and the leaves of onnx_shift/
ALLOWED = {
    "runtime": set(),
    "models": set(),
    "onnx_pruner": set(),
    "portfolio": {"onnx_pruner", "runtime"},
    "exporter": {"models", "portfolio"},
    "serving": {"runtime"},
}


def imports_of(file: Path, *, in_functions: bool = True, typing: bool = True) -> list[str]:
    """Every dotted name below onnx_shift that `file` imports, also in functions and under TYPE_CHECKING."""
    tree = ast.parse(file.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    inside_functions = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if (not in_functions and id(node) in inside_functions) or (not typing and id(node) in for_types):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{file}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == "onnx_shift"]


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_in_one_direction(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files, f"no file in {part}/"
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports_of(file)
        if name.split(".")[1] not in ALLOWED[part] | LEAVES | {part}
    ]
    assert wrong == []


def test_command_line_and_reports_import_parts_inside_functions_only() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / "onnx_shift").rglob("*.py"))
        for name in imports_of(file, in_functions=False, typing=False)
        if name.split(".")[1] in ALLOWED
    ]
    assert wrong == []


FOLDERS = {**{f"onnx_shift.{part}": part for part in ALLOWED}, "onnx_shift": "onnx_shift"}


def modules() -> dict[str, Path]:
    """Every module of ours by its full name."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            names = [package, *file.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(names).removesuffix(".__init__")] = file
    return found


def test_no_circle_of_imports() -> None:
    """Those under TYPE_CHECKING count, but for the public names of onnx_shift itself, which are loaded on use."""
    known = modules()

    def home(name: str) -> str | None:
        while name not in known and "." in name:
            name = name.rpartition(".")[0]
        return name if name in known else None

    reads = {
        module: {home(name) for name in imports_of(file, in_functions=False, typing=module != "onnx_shift")} - {None}
        for module, file in known.items()
    }
    left = dict(reads)
    while free := [module for module, names in left.items() if not names & left.keys() - {module}]:
        for module in free:
            del left[module]
    assert sorted(left) == []


def test_a_leaf_imports_the_standard_library_alone() -> None:
    for leaf in LEAVES - {"claims", "ort"}:
        tree = ast.parse((ROOT / "onnx_shift" / f"{leaf}.py").read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n.split(".")[0] for n in names} <= sys.stdlib_module_names | {"onnx_shift"}, leaf


def test_the_runtime_loads_neither_torch_nor_onnx_nor_graphsurgeon() -> None:
    code = "import sys, onnx_shift.runtime; print(sorted({'torch', 'onnx', 'onnx_graphsurgeon'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_pruner_does_not_load_torch() -> None:
    code = "import sys, onnx_shift.onnx_pruner, onnx_shift.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_module_has_its_place_in_the_documentation() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = [file for part in (*ALLOWED, "onnx_shift") for file in (ROOT / part).rglob("*.py")]
    unnamed = [f"{file.parent.name}/{file.name}" for file in files if f"{file.name}`" not in page]
    assert [name for name in unnamed if not name.endswith(("__init__.py", "__main__.py", "version.py"))] == []


# What has no test of its own: names, constants, and the start of the command, which every test of it runs.
WITHOUT_TEST = {
    "onnx_shift/errors.py",
    "onnx_shift/version.py",
    "onnx_shift/__main__.py",
    "runtime/errors.py",
    "serving/errors.py",
    "serving/settings.py",
}


def test_tests_mirror_the_files() -> None:
    parts = (*ALLOWED, "onnx_shift")
    files = [file.relative_to(ROOT) for part in parts for file in sorted((ROOT / part).rglob("*.py"))]
    missing = [
        f"{file} has no {test}"
        for file in files
        if file.name != "__init__.py" and str(file) not in WITHOUT_TEST
        for test in [Path("tests", file.parent, f"test_{file.name}")]
        if not (ROOT / test).exists()
    ]
    assert missing == []
    assert [name for name in WITHOUT_TEST if not (ROOT / name).exists()] == []
