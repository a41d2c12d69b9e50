"""Trained levels that are kept below benchmarks/data, so that benchmarks run on a fresh clone without training.

`python -m benchmarks keep RUN NAME` puts those that a run has so far there as the training NAME: a portfolio of its
levels as trained, BatchNorm and zeros and all, beside its recipe and logs. SHA256SUMS is of all, as sha256sum reads it.
"""

import argparse
import csv
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.recipe import load_recipe
from onnx_shift.exporter.run_folder import RunFolder, write_csv
from onnx_shift.files import write_text
from onnx_shift.portfolio.inputs import open_sources
from onnx_shift.portfolio.pack import pack

_ROOT = Path(__file__).resolve().parents[2]
FOLDER = _ROOT / "benchmarks" / "data"
UNPACKED = _ROOT / ".bench" / "kept"
LEVELS, SUMS = "levels.zip", "SHA256SUMS"
MOST_BYTES = 12_000_000
DATA = "uoft-cs/cifar10"


def keep(run: Path, name: str, numbers: Sequence[int] = (), into: Path | None = None) -> Path:
    """Keep the levels `numbers` (default: all) of `run`, finished or not, as training `name`; return their folder.

    Logs are those of all levels that are done. Raises OnnxShiftError where a level is missing or all that is kept would
    exceed `MOST_BYTES`; elsewhere (`into`) any size will do, and nothing is hashed.
    """
    folder, source = (into or FOLDER) / name, RunFolder(run)
    levels = _rows(run / "levels.csv")
    chosen = [source.level(number) for number in numbers or [int(row["level"]) for row in levels]]
    for path in chosen:
        if not path.exists():
            raise OnnxShiftError(f"{path}: is not there, so it cannot be kept")
    folder.mkdir(parents=True, exist_ok=True)
    pack(chosen, folder / LEVELS)
    last = levels[-1]
    recipe = replace(load_recipe(source.recipe), data=DATA, levels=int(last["level"]))
    write_text(folder / "recipe.json", recipe.to_json())
    write_csv(folder / "levels.csv", levels)
    epochs = _rows(run / "metrics.csv")
    write_csv(folder / "metrics.csv", [row for row in epochs if int(row["round"]) <= int(last["round"])])
    if into is not None:
        return folder
    write_text(FOLDER / SUMS, "".join(f"{_digest(path)}  {path.relative_to(FOLDER)}\n" for path in _files()))
    total = sum(path.stat().st_size for path in _files())
    if total > MOST_BYTES:
        raise OnnxShiftError(f"{FOLDER}: {total:,} bytes, at most {MOST_BYTES:,}; keep fewer levels of {name}")
    return folder


def unpacked(name: str) -> Path | None:
    """Return a folder like that of the run, with the levels kept of training `name` as ONNX files, if there are any."""
    source = FOLDER / name
    if not (source / LEVELS).exists():
        return None
    folder = UNPACKED / f"{name}-{_digest(source / LEVELS)[:16]}"
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    with open_sources([source / LEVELS]) as variants:
        for variant in variants:
            model = onnx.load(variant.path)
            for tensor in model.graph.initializer:
                tensor.ClearField("data_location")  # loading states it, the trainer does not: now the files are equal
            onnx.save(model, making / f"{variant.name}.onnx")
    for path in source.glob("*.*"):
        if path.name != LEVELS:
            shutil.copyfile(path, making / path.name)
    return making.rename(folder)


def changed() -> list[str]:
    """Return the kept files that SHA256SUMS states otherwise or not at all, and what it states that is not there."""
    lines = (FOLDER / SUMS).read_text().splitlines() if (FOLDER / SUMS).exists() else []
    stated = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    found = {str(path.relative_to(FOLDER)): _digest(path) for path in _files()}
    return sorted(name for name in stated.keys() | found.keys() if stated.get(name) != found.get(name))


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*/*") if path.is_file())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise OnnxShiftError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise OnnxShiftError(f"{path}: states no level or epoch that is done")
    return rows


def main(arguments: Sequence[str]) -> int:
    """`python -m benchmarks keep`: say what is kept now."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks keep", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, finished or not")
    parser.add_argument("name", metavar="NAME", help="the training that it is, such as imp-preset")
    parser.add_argument("--level", type=int, action="append", default=[], help="keep this one (default: all)")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="elsewhere than benchmarks/data")
    given = parser.parse_args(arguments)
    try:
        folder = keep(given.run, given.name, given.level, given.into)
    except OnnxShiftError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sizes = ", ".join(f"{path.name} {path.stat().st_size:,}" for path in sorted(folder.iterdir()))
    sys.stdout.write(f"{folder}: {sizes} bytes; all kept: {sum(path.stat().st_size for path in _files()):,}\n")
    return 0
