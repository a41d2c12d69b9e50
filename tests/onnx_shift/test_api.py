"""The public names, as a user imports them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import onnx_shift
from onnx_shift.errors import OnnxShiftError

DENSE = """
<ir_version: 8, opset_import: ["" : 17]> g (float[N,2,4,4] x) => (float[N,3] y)
  <float[8,2,1,1] w, float[8] s, float[8] b, float[3,8] v> {
  c = Conv(x, w) n = BatchNormalization(c, s, b, b, s) r = Relu(n) p = GlobalAveragePool(r) f = Flatten(p)
  y = Gemm<transB = 1>(f, v)
}
"""


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A convolution of eight channels, four of them without weights, and its BatchNormalization."""
    model = onnx.parser.parse_model(DENSE)
    w = np.ones((8, 2, 1, 1), np.float32)
    w[::2] = 0
    weights = {"w": w, "s": np.ones(8), "b": np.full(8, 0.5), "v": np.ones((3, 8))}
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    onnx.save(model, tmp_path / "sparse.onnx")
    return tmp_path / "sparse.onnx"


def test_every_public_name_is_there_and_no_other_home_is_listed() -> None:
    assert set(onnx_shift._HOMES) == set(onnx_shift.__all__) - {"OnnxShiftError", "__version__"}
    assert all(hasattr(onnx_shift, name) and name in dir(onnx_shift) for name in onnx_shift.__all__)
    with pytest.raises(AttributeError, match="no attribute 'shrink'"):
        _ = onnx_shift.shrink


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("numpy", "onnx", "onnxruntime", "torch", "matplotlib", "rich")
    code = f"import sys, onnx_shift; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_prune_saves_and_tells_what_it_removed(sparse: Path, tmp_path: Path) -> None:
    result = onnx_shift.prune(sparse, align=1)
    result.save(tmp_path / "pruned.onnx")
    assert onnx_shift.verify(sparse, tmp_path / "pruned.onnx").equal
    assert result.summary().splitlines()[:2] == [
        f"{sparse}: removed 4 of 11 channels, folded 1 BatchNormalization",
        "parameters: 56 → 27 (48.2%)",
    ]
    assert repr(result) == f"PruneResult({result.summary().splitlines()[0]})"


def test_a_model_with_nothing_to_remove_is_copied_byte_for_byte(sparse: Path, tmp_path: Path) -> None:
    onnx_shift.prune(sparse, align=1).save(tmp_path / "once.onnx")
    again = onnx_shift.prune(tmp_path / "once.onnx", align=1)
    again.save(tmp_path / "twice.onnx")
    assert again.report.unchanged and "nothing to remove" in again.summary()
    assert (tmp_path / "twice.onnx").read_bytes() == (tmp_path / "once.onnx").read_bytes()


def test_folding_keeps_every_channel(sparse: Path) -> None:
    folded = onnx_shift.fold_batch_norm(sparse)
    assert "BatchNormalization" not in [node.op_type for node in folded.graph.node]
    assert {tuple(tensor.dims) for tensor in folded.graph.initializer} >= {(8, 2, 1, 1), (3, 8)}


def test_profile_select_pack_and_switch(sparse: Path, tmp_path: Path) -> None:
    onnx_shift.prune(sparse, align=1).save(tmp_path / "pruned.onnx")
    models = [sparse, str(tmp_path / "pruned.onnx")]
    settings = onnx_shift.Settings(seconds=0.01, attempts=1, memory=False)
    shares = iter((0.5, 0.75))
    profile = onnx_shift.profile(models, evaluate=lambda run: next(shares), settings=settings)
    profile.save(tmp_path / "profile.json")
    assert onnx_shift.Profile.load(tmp_path / "profile.json") == profile
    assert {name: one.accuracy for name, one in profile.variants.items()} == {"sparse": 0.5, "pruned": 0.75}
    assert onnx_shift.select(profile, metrics=["parameters"]).kept == ("pruned",)
    onnx_shift.pack(models, tmp_path / "p.zip", profile=profile, keep_all=True)
    with onnx_shift.ModelSwitcher(onnx_shift.Portfolio.open(tmp_path / "p.zip"), cache=False) as model:
        (answer,) = model.run(None, {"x": np.zeros((2, 2, 4, 4), np.float32)})
    assert answer.shape == (2, 3)


def test_what_evaluate_returns_must_be_a_share(sparse: Path) -> None:
    settings = onnx_shift.Settings(seconds=0.01, attempts=1, memory=False)
    with pytest.raises(OnnxShiftError, match=r"sparse\.onnx: evaluate returned 91\.0, not a share from 0 to 1"):
        onnx_shift.profile([sparse], evaluate=lambda run: 91.0, settings=settings)
