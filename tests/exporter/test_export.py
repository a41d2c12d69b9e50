"""ONNX files: any batch size, BatchNorm kept, +0.0, equal outputs; and refusals of what ONNX cannot say."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from onnx_shift.claims import MEASURED_ON, claimed_accuracy
from onnx_shift.exporter import export
from onnx_shift.exporter.export import ExportError, export_onnx
from onnx_shift.models.registry import MODELS, build, initialise

FAMILIES = ("vgg11", "resnet20-cifar", "resnet18", "resnet50", "mobilenet-v2-cifar", "repvgg-a0-cifar")


def _run(path: Path, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": images.numpy()})[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_models_export_with_any_batch_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(name, num_classes=5, in_channels=3, width=0.125)
    initialise(model, uniform_batchnorm=True)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, shape=(3, 32, 32), metadata={"ratio": "2", "accuracy": "0.5"})
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version >= 17
    assert [entry.key for entry in proto.metadata_props] == ["onnx_shift.ratio", "onnx_shift.accuracy", MEASURED_ON]
    assert claimed_accuracy(proto) == 0.5
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    kinds = [node.op_type for node in proto.graph.node]
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert kinds.count("BatchNormalization") == (0 if name.startswith("repvgg") else norms)
    for count in (1, 7):
        images = torch.randn(count, 3, 32, 32)
        with torch.no_grad():
            expected = model.eval()(images).numpy()
        assert np.abs(_run(path, images) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_every_family_is_among_the_exported() -> None:
    def family(name: str) -> str:
        return name.rstrip("0123456789").split("-")[0].rstrip("0123456789")

    assert {family(name) for name in MODELS} == {family(name) for name in FAMILIES}


def test_zeros_leave_as_positive_zeros_and_the_model_is_not_touched(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].weight[0] = -0.0
    model.train()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, shape=(1, 5, 5))
    weights = next(t for t in onnx.load(path).graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(weights)
    assert (array[0] == 0).all()
    assert not np.signbit(array).any()
    assert model.training
    assert torch.signbit(model[0].weight[0]).all()


class _FixedBatch(nn.Module):
    """Reads the batch size as a number, which tracing then freezes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(int(x.shape[0]), -1)[:, :4] * x.shape[0]


class _Unsayable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x[:, 0]).real


def test_a_model_that_onnx_cannot_say_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        export_onnx(_Unsayable(), path, shape=(1, 4, 4))
    with pytest.raises(ExportError, match=r"gives \(2, 4\) for three images, not \(3, 4\): its code freezes"):
        export_onnx(_FixedBatch(), path, shape=(1, 4, 4))
    assert not path.exists()


def test_a_wrong_export_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = export._trace

    def wrong(network: nn.Module, example: Tensor) -> onnx.ModelProto:
        proto = trace(network, example)
        array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
        array[0] += 1
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, proto.graph.initializer[0].name))
        return proto

    monkeypatch.setattr(export, "_trace", wrong)
    with pytest.raises(ExportError, match=r"outputs differ from torch's by .* of their scale"):
        export_onnx(build("vgg-digits", num_classes=4, in_channels=1), tmp_path / "m.onnx", shape=(1, 8, 8))
