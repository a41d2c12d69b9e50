"""A result is out of date when a file changes that its benchmark imports, directly or not, and only then."""

from pathlib import Path

from benchmarks.support.sources import files_behind

FILES = {
    "benchmarks/__init__.py": "",
    "benchmarks/speed.py": "import numpy\nfrom benchmarks import shared\nfrom onnx_shift.runtime import replay\n",
    "benchmarks/shared.py": "def late():\n    from onnx_shift.errors import Mistake\n",
    "benchmarks/other.py": "import onnx_shift.models.vgg\n",
    "models/vgg.py": "",
    "numpy.py": "",
    "onnx_shift/__init__.py": "",
    "onnx_shift/errors.py": "",
    "runtime/__init__.py": "",
    "runtime/replay.py": "import onnx_shift.runtime.load as load\n",
    "runtime/load.py": "",
    "runtime/session.py": "",
}


def test_files_behind_are_those_imported_and_no_others(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = files_behind(tmp_path / "benchmarks" / "speed.py", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "benchmarks/__init__.py",
        "benchmarks/shared.py",
        "benchmarks/speed.py",
        "onnx_shift/__init__.py",
        "onnx_shift/errors.py",
        "runtime/__init__.py",
        "runtime/load.py",
        "runtime/replay.py",
    ]
