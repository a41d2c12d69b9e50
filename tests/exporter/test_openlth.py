"""Checkpoints as OpenLTH writes them: its names, dead weights not zero, the mask in a file beside."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from onnx_shift.exporter.checkpoint import CheckpointError
from onnx_shift.exporter.openlth import export_any, parse_shape
from onnx_shift.models.registry import build


def _write(folder: Path, name: str, *, width: float = 1.0, prefix: str = "") -> tuple[Path, torch.nn.Module]:
    """OpenLTH's two files; half of every convolution is masked but, as there, not zero in the weights."""
    torch.manual_seed(0)
    model = build(name, num_classes=10, in_channels=3, width=width)
    generator = torch.Generator().manual_seed(1)
    mask = {
        f"{prefix}{key}": (torch.rand(value.shape, generator=generator) < 0.5).int()
        for key, value in model.named_parameters()
        if value.dim() == 4
    }
    path = folder / "model_ep160_it0.pth"
    torch.save({f"{prefix}{key}": value for key, value in model.state_dict().items()}, path)
    torch.save(mask, folder / "mask.pth")
    with torch.no_grad():
        for key, kept in mask.items():
            model.get_parameter(key.removeprefix(prefix)).mul_(kept)
    return path, model.eval()


@pytest.mark.parametrize(
    ("name", "width", "prefix", "shape"),
    [
        ("vgg11", 0.25, "", (3, 32, 32)),
        ("resnet20-cifar", 1.0, "", (3, 32, 32)),
        ("resnet18", 0.25, "model.", (3, 64, 64)),
    ],
)
def test_weights_and_mask_become_onnx(
    name: str, width: float, prefix: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    path, model = _write(tmp_path, name, width=width, prefix=prefix)
    output = tmp_path / "out.onnx"
    what = export_any(path, output, model=None, mask=None, shape=shape)
    assert what.startswith(f"{name}, ")
    assert what.endswith("mask.pth")
    images = torch.randn(3, *shape)
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": images.numpy()})[0]
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    initializers = onnx.load(output).graph.initializer
    zeros = [np.mean(numpy_helper.to_array(t) == 0) for t in initializers if len(t.dims) == 4 and t.dims[2] == 3]
    assert all(0.4 < share < 0.6 for share in zeros)


def test_masks_kept_as_buffers_are_applied(tmp_path: Path) -> None:
    path, _ = _write(tmp_path, "vgg11", width=0.25)
    export_any(path, tmp_path / "apart.onnx", model=None, mask=None, shape=None)
    buffers = {f"mask_{name.replace('.', '___')}": kept for name, kept in torch.load(tmp_path / "mask.pth").items()}
    pruned = {f"model.{name}": value for name, value in torch.load(path).items()} | buffers
    (tmp_path / "mask.pth").unlink()
    torch.save({"model_state_dict": pruned}, tmp_path / "pruned.pth")
    what = export_any(tmp_path / "pruned.pth", tmp_path / "inside.onnx", model=None, mask=None, shape=None)
    removed = sum(int((kept == 0).sum()) for kept in buffers.values())
    assert what == f"vgg11, {removed:,} weights zero by {tmp_path / 'pruned.pth'}"
    assert (tmp_path / "inside.onnx").read_bytes() == (tmp_path / "apart.onnx").read_bytes()


def test_refusals_name_the_file(tmp_path: Path) -> None:
    path, _ = _write(tmp_path, "vgg11", width=0.25)
    output = tmp_path / "out.onnx"
    with pytest.raises(CheckpointError, match="its weights do not fit --model resnet18"):
        export_any(path, output, model="resnet18", mask=None, shape=None)
    other = tmp_path / "other.pth"
    torch.save({"layers.0.conv.weight": torch.ones(2, 2)}, other)
    with pytest.raises(CheckpointError, match=r"other\.pth: layers\.0\.conv\.weight is no mask of a weight"):
        export_any(path, output, model=None, mask=other, shape=None)
    for content, message in [
        (
            {"layers.0.conv.weight": torch.ones(2, 2, 3, 3)},
            "fit none of the known models; name one with --model",
        ),
        (
            {"embedding.weight": torch.ones(1_000_000, 2)},
            "fit none of the known models; name one with --model",
        ),
        ({"epoch": 3}, "holds no weights"),
        ({"gamma": torch.ones(3)}, "holds no convolution or linear weights"),
        ({"mask_conv": torch.ones(4, 3, 3, 3)}, "holds no convolution or linear weights"),
        ({"recipe": {}, "class_names": []}, r"not a usable checkpoint .holds no model."),
        ([1, 2], "not a usable checkpoint .holds a list."),
    ]:
        torch.save(content, other)
        with pytest.raises(CheckpointError, match=f"other.pth: .*{message}"):
            export_any(other, output, model=None, mask=None, shape=None)
    other.write_bytes(b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match=r"other\.pth: not a usable checkpoint"):
        export_any(other, output, model=None, mask=None, shape=None)
    assert not output.exists()


def test_shapes_are_read_or_refused() -> None:
    assert parse_shape("3,64,32") == (3, 64, 32)
    assert parse_shape(None) is None
    for text in ("3,64", "a,b,c", "3,0,8"):
        with pytest.raises(CheckpointError, match=f"--shape {text}: give channels, height and width"):
            parse_shape(text)
