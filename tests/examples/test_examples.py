"""The examples run as their first lines say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from onnx_shift.portfolio.pack import pack
from tests.networks import network

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with dense.onnx, sparse.onnx, small.onnx, and a portfolio of the first and the last."""
    onnx.save(network(32, zeros=0), tmp_path / "dense.onnx")
    onnx.save(network(32, zeros=0, empty=16), tmp_path / "sparse.onnx")
    onnx.save(network(16), tmp_path / "small.onnx")
    pack([tmp_path / "dense.onnx", tmp_path / "small.onnx"], tmp_path / "portfolio.zip")
    return tmp_path


def run(name: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_is_listed_and_tested() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    page, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    evaluations = {"custom_evaluation.py", "detection.py", "segmentation.py"}
    assert names == {"prune_and_switch.py", "own_policy.py", "fastapi_app.py", *evaluations}
    assert [name for name in names if name not in page or f'"{name}' not in tests] == []


def test_prune_and_switch(folder: Path) -> None:
    told = run("prune_and_switch.py", "sparse.onnx", folder=folder)
    assert "removed 16 of" in told
    assert "folded -> pruned: " in told or "pruned -> folded: " in told
    assert "requests were answered meanwhile" in told
    assert (folder / "portfolio.zip").stat().st_size > 0


def test_custom_evaluation(folder: Path) -> None:
    told = run("custom_evaluation.py", "dense.onnx", "sparse.onnx", folder=folder)
    assert "dense: 100% agree" in told
    stored = json.loads((folder / "profile.json").read_text())
    assert stored["variants"]["dense"]["accuracy"] == 1
    assert stored["variants"]["sparse"]["accuracy"] < 1


def profiled(example: str, model: onnx.ModelProto, folder: Path, **validation: NDArray[Any]) -> dict[str, float]:
    """The scores in the profile of `model` by the example's function."""
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "validation.npz", images=np.zeros((2, 1, 2, 2), np.float32), **validation)
    shutil.copy(EXAMPLES / example, folder)
    evaluate = ["--evaluate", f"{example.removesuffix('.py')}:score", "--seconds", "0.01", "--json"]
    command = [sys.executable, "-m", "onnx_shift", "profile", "net.onnx", *evaluate]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)["variants"]["net"]["scores"]
    return found


def test_segmentation(tmp_path: Path) -> None:
    body = "a = Constant<value = float[1,2,1,1] {1.0, 0.0}>()\n scores = Add(input, a)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[N,1,2,2] input) => (float[N,2,2,2] scores) {{ {body} }}'
    )
    classes = np.array([[[0, 0], [0, 1]], [[0, -1], [-1, -1]]])  # always answered with 0
    scores = profiled("segmentation.py", model, tmp_path, classes=classes)
    assert scores == {"mean_iou": pytest.approx(0.4), "pixels": pytest.approx(0.8)}


def test_detection(tmp_path: Path) -> None:
    body = (
        "b = Constant<value = float[3,4] {0.0,0.0,2.0,2.0, 5.0,5.0,6.0,6.0, 0.0,0.0,2.0,3.0}>()\n"
        "s = Constant<value = float[3] {0.9, 0.8, 0.7}>()\n"
        "c = Constant<value = int64[3] {1, 1, 2}>()\n"
        "m = ReduceSum<keepdims = 0>(input)\n boxes = Add(b, m)\n scores = Add(s, m)\n classes = Identity(c)"
    )
    outputs = "(float[3,4] boxes, float[3] scores, int64[3] classes)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[1,1,2,2] input) => {outputs} {{ {body} }}'
    )
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]], np.float32)
    objects = {"boxes": boxes, "classes": np.array([1, 1, 2]), "image_of": np.array([0, 1, 0])}
    scores = profiled("detection.py", model, tmp_path, **objects)
    # Class 1: both found by the two surest. Class 2: its box covers two thirds of the answer, one of two is right.
    assert scores == {"map50": pytest.approx((1 + 1) / 2), "map75": pytest.approx((1 + 0) / 2)}


def test_own_policy(folder: Path) -> None:
    assert "the battery is low: serving small" in run("own_policy.py", "portfolio.zip", folder=folder)


def test_own_policy_in_a_replay(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnx_shift", "replay", str(folder / "portfolio.zip"), "--policy",
         "own_policy:battery_saver", "--duration", "1", "--json"],
        cwd=EXAMPLES, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"].keys() >= {"policy", "smallest", "largest"}


def test_fastapi_app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install fastapi httpx")
    testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed: pip install httpx")
    monkeypatch.setenv("PORTFOLIO", str(folder / "portfolio.zip"))
    monkeypatch.setenv("ONNX_SHIFT_CACHE", str(folder / "graphs"))
    monkeypatch.syspath_prepend(EXAMPLES)
    from fastapi_app import app

    with testclient.TestClient(app) as client:
        image = [[[[0.5] * 8] * 8] * 3]
        answer = client.post("/predict", json={"inputs": {"input": image}}).json()
        assert answer["variant"] in client.get("/variants").json()["variants"]
        assert len(answer["outputs"]["logits"][0]) == 5
        refused = client.post("/predict", json={"inputs": {"input": [1]}})
        assert refused.status_code == 400
        assert "not what the model takes" in refused.json()["detail"]
