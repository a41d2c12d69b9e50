"""The wheel holds every part below one name, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("exporter", "models", "onnx_pruner", "portfolio", "runtime")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("onnx_shift", *PARTS, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_wheel_holds_every_module_below_one_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(file.relative_to(ROOT)) for file in (ROOT / "onnx_shift").rglob("*.py")}
    expected |= {f"onnx_shift/{file.relative_to(ROOT)}" for part in PARTS for file in (ROOT / part).rglob("*.py")}
    assert expected <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"onnx_shift"}


def test_wheel_needs_no_torch_without_the_train_extra(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert {line.split()[1].split(">")[0] for line in required} == {
        "numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "typer", "rich", "deflate",
    }  # fmt: skip


def test_editable_install_finds_every_part() -> None:
    for part in PARTS:
        code = f"import onnx_shift.{part} as part; print(part.__file__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith(f"{part}/__init__.py")
