"""Models that others made stay equal, as they are and with zeros put in; they lie beside the repository."""

from pathlib import Path

import onnx
import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner import prune
from zoo import zeros
from zoo.judge import judge

FOLDER = Path(__file__).parents[3] / "shared" / "models"
#: Seconds per run at their input sizes.
LARGE = {"onnx-onnx__light_vgg19", "onnx-onnx__light_resnet50", "Kazuhito00-NodeEditor__yolox_nano"}
REFUSED = "ms-ort-inference-examples__supres"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no shared models beside the repository")
MODELS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LARGE else [])
    for path in sorted(FOLDER.glob("*.onnx"))
    if path.stem != REFUSED
]


@pytest.mark.parametrize("path", MODELS)
def test_a_model_made_elsewhere_stays_equal(path: Path) -> None:
    model = onnx.load(path)
    pruned = prune(path, verify=False).model
    assert judge(model, pruned).error <= 1
    assert zeros.parameters(pruned) <= zeros.parameters(model)


@pytest.mark.parametrize("path", MODELS)
def test_with_zeros_put_in_it_stays_equal_and_shrinks(path: Path) -> None:
    sparse = zeros.inject(onnx.load(path), 3)
    pruned = prune(sparse, align=1, verify=False).model
    assert judge(sparse, pruned).error <= 1
    if "light_" not in path.stem:  # their weights are ConstantOfShape nodes
        assert zeros.parameters(pruned) < zeros.parameters(sparse)


def test_the_network_that_was_trained_sparse_loses_all_it_can() -> None:
    """The paper's rule leaves 606,624 parameters; the fixed point of the design leaves 370,430."""
    path = FOLDER / "imp_vgg16_quarter_cifar10_ratio109.onnx"
    assert zeros.parameters(prune(path, align=1, verify=False).model) <= 370_430


def test_an_operator_that_onnxruntime_does_not_know_is_refused() -> None:
    with pytest.raises(OnnxShiftError, match=r"supres.*SuperResolution"):
        prune(FOLDER / f"{REFUSED}.onnx")
