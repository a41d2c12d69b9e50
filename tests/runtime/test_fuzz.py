"""Damaged files: whatever is changed, an error of our own or the same answers; never a crash, a hang or a wrong one."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_shift.portfolio.pack import pack
from onnx_shift.runtime import Portfolio, PortfolioError
from onnx_shift.runtime.archive import new_member, read_archive, write_archive
from onnx_shift.runtime.portfolio import MANIFEST
from tests.runtime.conftest import network


def damaged(raw: bytes, random: np.random.Generator) -> bytes:
    """Return `raw` with one of the damages that disks, networks and editors do, anywhere."""
    at, other = (int(value) for value in random.integers(0, len(raw), 2))
    if random.random() < 0.4:  # half of the bytes that matter most lie in headers, manifest and directory
        at = len(raw) - 1 - int(random.integers(0, 1200)) if random.random() < 0.5 else int(random.integers(0, 3000))
    length = int(random.integers(1, 60))
    noise = random.integers(0, 256, length, np.uint8).tobytes()
    kind = random.integers(0, 7)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + bytes([raw[at] ^ 1 << int(random.integers(0, 8))]) + raw[at + 1 :]
    if kind == 2:
        return raw[:at] + noise + raw[at + length :]
    if kind == 3:
        return raw[:at] + noise + raw[at:]
    if kind == 4:
        return raw[:at] + raw[at + length :]
    if kind == 5:
        return raw[:at] + raw[other : other + length] + raw[at + length :]
    return raw[:at] + bytes(length) + raw[at + length :]


def check(raw: bytes, count: int, seed: int) -> None:
    whole = [variant.sha256 for variant in Portfolio.open(raw)]
    random = np.random.default_rng(seed)
    refused = 0
    for _ in range(count):
        changed = damaged(raw, random)
        try:
            found = [variant.sha256 for variant in Portfolio.open(changed)]
        except PortfolioError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert changed == raw and found == whole  # the damage wrote what was there before
    assert refused > 0.97 * count


def test_some_hundred_damaged_portfolios(portfolio_path: Path) -> None:
    check(portfolio_path.read_bytes(), 600, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_twenty_thousand_damaged_portfolios(portfolio_path: Path, seed: int) -> None:
    check(portfolio_path.read_bytes(), 4000, seed)


def mixed(one: Path, other: Path, count: int, seed: int) -> int:
    """Open portfolios whose files come from two, one of them beside its own manifest; return how many were whole."""
    ours, theirs = read_archive(one), read_archive(other)
    whole = {name: member.sha256() for name, member in ours.items()}
    random = np.random.default_rng(seed)
    opened = 0
    for _ in range(count):
        taken = random.random(len(ours)) < random.random()
        files = {
            name: theirs.get(name, ours[name]) if take else ours[name] for name, take in zip(ours, taken, strict=True)
        }
        if random.random() < 0.3:
            files.pop(str(random.choice(list(files))))
        file = io.BytesIO()
        write_archive(file, files.values())
        try:
            Portfolio.open(file.getvalue())
        except PortfolioError as error:
            assert "\n" not in str(error)
        else:
            found = {name: member.sha256() for name, member in files.items()}
            assert found in (whole, {name: member.sha256() for name, member in theirs.items()})
            opened += 1
    return opened


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_portfolios_mixed_of_two_are_refused_or_are_one_of_them(
    portfolio_path: Path, tmp_path: Path, count: int
) -> None:
    for name, width in (("small", 17), ("medium", 32), ("large", 64)):
        onnx.save(network(width), tmp_path / f"{name}.onnx")
    pack(sorted(tmp_path.glob("*.onnx")), tmp_path / "other.zip")
    assert 0 < mixed(portfolio_path, tmp_path / "other.zip", count, seed=count) < count / 2


def changed_manifest(manifest: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Return the manifest with one value, anywhere, replaced by another that a program may write there."""
    changed = copy.deepcopy(manifest)
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                collect(node[key])

    collect(changed)
    node, key = places[int(random.integers(0, len(places)))]
    values = [
        None,
        True,
        -1,
        0,
        1,
        7,
        64,
        2**31,
        2**63,
        1.5,
        "",
        "x",
        "float64",
        "weights-000.bin",
        [],
        [3],
        {},
        "../x",
    ]
    node[key] = values[int(random.integers(0, len(values)))]
    return changed


def lying(path: Path, count: int, seed: int) -> list[bytes]:
    """Return portfolios whose container is whole and whose manifest lies in one place."""
    members = read_archive(path)
    manifest = json.loads(members.pop(MANIFEST).content().tobytes())
    random = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        file = io.BytesIO()
        text = json.dumps(changed_manifest(manifest, random))
        write_archive(file, [new_member(MANIFEST, text.encode()), *members.values()])
        files.append(file.getvalue())
    return files


SERVE_ALL = """
import sys
from pathlib import Path
import numpy as np, onnxruntime as ort
from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime import ModelSwitcher
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
images = np.random.default_rng(7).standard_normal((2, 3, 8, 8)).astype(np.float32)
for path in sorted(Path(sys.argv[1]).iterdir()):
    for cache in (False, sys.argv[2]):
        try:
            with ModelSwitcher(path, options, ["CPUExecutionProvider"], cache=cache) as model:
                for variant in model.portfolio:
                    model.switch(variant)
                    model.run(None, {"input": images})
        except OnnxShiftError as error:
            print(path.name, "refused", error)
        else:
            print(path.name, "served")
print("done")
"""


def serve_in_a_process(files: list[bytes], folder: Path) -> list[str]:
    (folder / "files").mkdir()
    for index, raw in enumerate(files):
        (folder / "files" / f"{index:05}.zip").write_bytes(raw)
    arguments = [sys.executable, "-c", SERVE_ALL, str(folder / "files"), str(folder / "cache")]
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.splitlines()


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_manifests_that_lie_never_crash_the_process(portfolio_path: Path, tmp_path: Path, count: int) -> None:
    lines = serve_in_a_process(lying(portfolio_path, count, seed=count), tmp_path)
    assert lines[-1] == "done" and len(lines) == 2 * count + 1
    assert sum("refused" in line for line in lines) > count / 2
