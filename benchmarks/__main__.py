"""Run the benchmarks: `python -m benchmarks [NAME ...] [--again] [--list]`, cheapest first; those that make the tables
of onnx_pruner/targets only by name.

None of them trains on CIFAR-10: `python -m benchmarks train` does, and `keep` puts a run below benchmarks/data.
Results go to docs/results/. What was measured on this machine with this very code is not measured again unless
`--again`; an interrupted run resumes with the first that is missing. Exit status 1 when a figure misses its
target in targets.toml or a benchmark fails.
"""

import argparse
import compileall
import hashlib
import importlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import subprocess
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.support import results
from benchmarks.support.sources import PARTS, files_behind
from onnx_shift.errors import OnnxShiftError

WORK = results.ROOT / ".bench"
_VERSIONS = ("onnx", "numpy", "torch")


def main() -> int:
    if sys.argv[1:2] == ["train"]:
        from benchmarks.support.trainings import main as train

        return train(sys.argv[2:])
    if sys.argv[1:2] == ["keep"]:
        from benchmarks.support.kept import main as keep

        return keep(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--again", action="store_true", help="measure even what is up to date")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    arguments = parser.parse_args()
    modules = find_benchmarks()
    if arguments.list:
        for name, module in modules.items():
            only = "  (only by name)" if by_name_alone(module) else ""
            sys.stdout.write(f"{name:20} {module.MINUTES:4g} min  {module.TITLE}{only}\n")
        return 0
    unknown = [name for name in arguments.names if name not in modules]
    if unknown:
        sys.stderr.write(f"error: no benchmark {unknown[0]}; there are {', '.join(modules)}\n")
        return 1
    names = arguments.names or [name for name, module in modules.items() if not by_name_alone(module)]
    chosen = {name: modules[name] for name in names}
    write_bytecode()
    failures, minutes = [], {}
    for name, module in chosen.items():
        started = time.monotonic()
        failures += run(name, module, arguments.again)
        minutes[name] = (time.monotonic() - started) / 60
    results.write_all()
    for name, taken in {**minutes, "all": sum(minutes.values())}.items():
        sys.stdout.write(f"{name:20} {taken:5.1f} min\n")
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    return 1 if failures else 0


def find_benchmarks() -> dict[str, ModuleType]:
    """Return the modules of this folder that define a benchmark, cheapest first."""
    found = {}
    for entry in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"benchmarks.{entry.name}") if entry.name != "__main__" else None
        if hasattr(module, "TITLE"):
            found[entry.name] = module
    return dict(sorted(found.items(), key=lambda item: item[1].MINUTES))


def by_name_alone(module: ModuleType) -> bool:
    """Whether a benchmark makes a table that the product works by, which changes with onnxruntime and not with us."""
    return getattr(module, "BY_NAME_ALONE", False)


def write_bytecode() -> None:
    """Compile our modules, as pip does: a process that has to is slower to start, and leaves memory free for later."""
    for package in ("onnx_shift", *PARTS):
        compileall.compile_dir(results.ROOT / package, quiet=1)


def run(name: str, module: ModuleType, again: bool) -> list[str]:
    """Measure one benchmark unless it is up to date, write its results, and return what is wrong with them."""
    output = results.RESULTS / f"{name}.json"
    machine = describe_machine()
    key = {"code": hash_code(module), "machine": machine}
    result = json.loads(output.read_text()) if output.exists() else {}
    before = result.get("spread", {}) if result.get("machine") == machine else {}
    missing = module.missing() if hasattr(module, "missing") else None
    if missing:
        kept = f"as measured on {result['date']}" if result else "without a result"
        sys.stdout.write(f"{name}: {kept}; not measured here ({missing})\n")
        if not result:
            return []
    elif again or result.get("key") != key["code"] or result.get("machine") != machine:
        sys.stdout.write(f"{name}: {module.TITLE} (about {module.MINUTES:g} minutes) ...\n")
        started = time.monotonic()
        try:
            (WORK / name).mkdir(parents=True, exist_ok=True)
            measured = module.measure(WORK / name)
        except OnnxShiftError as error:  # says in one line what is wrong
            return [f"{name}: {error}"]
        except Exception as error:  # noqa: BLE001  one failed benchmark must not keep the others from running
            traceback.print_exc()
            return [f"{name}: {type(error).__name__}: {error}"]
        result = {
            "title": module.TITLE,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "minutes": round((time.monotonic() - started) / 60, 2),
            "machine": machine,
            "key": key["code"],
            "rows": measured["rows"],
            "figures": measured["figures"],
            "notes": measured.get("notes", []),
            **{key: measured[key] for key in ("spread", "tables", "details") if key in measured},
        }
        result = json.loads(json.dumps(result))  # what is drawn and printed is what a reader of the file has
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")
        draw(module, result, output.with_suffix(".png"))
        for line in results.repeated(result["figures"], before):
            sys.stdout.write(f"  {line}\n")
    for caption, rows in results.tables_of(result).items():
        sys.stdout.write((f"{caption}\n" if caption else "") + results.markdown_table(rows))
    checks = results.check_targets(result["figures"], results.read_targets().get(name, {}))
    for _, text in checks:
        sys.stdout.write(f"  {text}\n")
    return [f"{name}: {text}" for met, text in checks if not met]


def draw(module: ModuleType, result: dict[str, Any], path: Path) -> None:
    """Write the benchmark's picture, where it has one."""
    if hasattr(module, "draw"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=getattr(module, "PICTURE_INCHES", (9, 4.5)), layout="constrained")
        module.draw(result, figure)
        figure.savefig(path, dpi=110)


def describe_machine() -> dict[str, Any]:
    """Return processor, cores and versions: figures of another machine are not up to date here."""
    import onnxruntime

    from onnx_shift.portfolio.machine import processor

    card = _graphics_card()
    return {
        "processor": processor() + (f", {card}" if card else ""),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            "onnxruntime": onnxruntime.__version__,  # one of several packages
            **{name: importlib.metadata.version(name) for name in _VERSIONS},
        },
    }


def _graphics_card() -> str | None:
    """Return the name of the NVIDIA GPU, where there is one."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0]


def hash_code(module: ModuleType) -> str:
    """Return a digest of the sources that the benchmark imports, directly or not, and of its own."""
    digest = hashlib.sha256()
    for path in files_behind(Path(str(module.__file__)), results.ROOT):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
