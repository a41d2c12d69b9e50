"""The wheel holds every part below one name, and nothing else."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from onnx_shift.runtime.kernels.build import find_compiler, library_name

ROOT = Path(__file__).parents[2]
PARTS = ("exporter", "models", "onnx_pruner", "portfolio", "runtime", "serving")


def build_wheel(folder: Path, compiler: str | None) -> Path:
    """Build the wheel into `folder` with the C compiler at hand, or with `compiler`."""
    source = folder / "source"
    source.mkdir()
    for name in ("onnx_shift", *PARTS, "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
        env=os.environ | ({"CC": compiler} if compiler else {}),
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"), None)


def test_wheel_holds_every_module_below_one_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(file.relative_to(ROOT)) for file in (ROOT / "onnx_shift").rglob("*.py")}
    expected |= {f"onnx_shift/{file.relative_to(ROOT)}" for part in PARTS for file in (ROOT / part).rglob("*.py")}
    assert expected <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"onnx_shift"}


USER = """
import onnx_shift
from onnx_shift.onnx_pruner import prune

reveal_type(prune)
reveal_type(onnx_shift.prune)
reveal_type(onnx_shift.verify)
reveal_type(onnx_shift.fold_batch_norm)
reveal_type(onnx_shift.profile)
reveal_type(onnx_shift.select)
reveal_type(onnx_shift.pack)
result: onnx_shift.PruneResult = onnx_shift.prune("sparse.onnx", align=1)
result.save("pruned.onnx")
text: str = result.summary()
equal: bool = onnx_shift.verify("a.onnx", "b.onnx").equal
profile: onnx_shift.Profile = onnx_shift.profile(["a.onnx"], evaluate=None)
milliseconds: float = profile.variants["a"].timing.latency[1].p50_ms
kept: tuple[str, ...] = onnx_shift.select(profile).kept
with onnx_shift.ModelSwitcher(onnx_shift.Portfolio.open("portfolio.zip")) as model:
    model.switch("smaller")
wrong: int = result.summary()
"""


def test_type_checkers_see_functions_in_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "user.py"]
    environment = {**os.environ, "MYPYPATH": str(tmp_path / "installed")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    *told, summary = done.stdout.splitlines()
    assert [line.split(": ")[1] for line in told] == ["note"] * 7 + ["error"], done.stdout
    assert all('Revealed type is "def (' in line for line in told[:7]), done.stdout
    assert summary == "Found 1 error in 1 file (checked 1 source file)"


def test_wheel_needs_no_torch_without_the_train_extra(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert {line.split()[1].split(">")[0] for line in required} == {
        "numpy", "ml_dtypes", "onnx", "onnx-graphsurgeon", "onnxruntime", "typer", "rich", "deflate",
    }  # fmt: skip


def test_wheel_holds_the_kernels_where_a_compiler_is_at_hand(wheel: Path) -> None:
    if find_compiler() is None:
        pytest.skip("no C compiler is installed")
    names = zipfile.ZipFile(wheel).namelist()
    assert f"onnx_shift/runtime/kernels/{library_name()}" in names and "onnx_shift/runtime/kernels/simd.h" in names
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")


def test_wheel_built_without_a_compiler_fits_any_platform(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "no-such-compiler")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(library_name())]
    assert wheel.name.endswith("-py3-none-any.whl")


def test_editable_install_finds_every_part() -> None:
    for part in PARTS:
        code = f"import onnx_shift.{part} as part; print(part.__file__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith(f"{part}/__init__.py")
