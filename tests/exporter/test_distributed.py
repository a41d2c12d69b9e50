"""Two processes under torchrun compute what one does, batch statistics and uneven batches included."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from onnx_shift.exporter.checkpoint import load_checkpoint
from onnx_shift.exporter.distributed import GlobalBatchNorm, World, synchronise_batchnorm
from onnx_shift.exporter.training import _leaves_unused
from onnx_shift.models.registry import build

OPTIONS = {
    "--levels": 1,
    "--epochs": 1,
    "--train-images": 299,
    "--batch-size": 100,
    "--learning-rate": 0.001,
    "--model": "resnet20-cifar",
    "--width": 0.25,
    "--device": "cpu",
}


def _checkpoints(folder: Path, method: str, round_: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train by one process and by two, unless that was done, and return what each knows at the end of a round."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as torchrun sets it: sums round alike
    for name, launcher in (("one", []), ("two", torchrun)):
        if (folder / name).exists():
            continue
        command = [sys.executable, *launcher, "-m", "onnx_shift", "train", "digits", "--no-tensorboard"]
        for option, value in (OPTIONS | {"-o": folder / name, "--method": method}).items():
            command += [option, str(value)]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240, env=one_thread)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("level-01.onnx") == 1  # the leading process alone talks
    one, two = (load_checkpoint(folder / name / f"checkpoints/round-{round_:02d}.pt") for name in ("one", "two"))
    return one, two


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    for round_ in (0, 1):
        one, two = _checkpoints(tmp_path, "imp", round_)
        assert all(torch.equal(one["mask"][name], two["mask"][name]) for name in one["mask"])
        # Rounding that turns a ReLU moves a weight by up to 1e-4 here; statistics of each process alone, by 0.08.
        assert abs(one["history"][-1]["loss"] - two["history"][-1]["loss"]) < 2e-4
        for name, value in one["model"].items():
            assert torch.allclose(value.float(), two["model"][name].float(), rtol=1e-4, atol=5e-4), name


@pytest.mark.parametrize("method", ["grasp", "ntk-sap"])
def test_two_processes_choose_like_one_where_rounding_would_grow(tmp_path: Path, method: str) -> None:
    one, two = _checkpoints(tmp_path, method, 1)
    assert all(torch.equal(one["mask"][name], two["mask"][name]) for name in one["mask"])


@pytest.mark.parametrize(("start", "stop", "size"), [(0, 128, 2), (256, 299, 4), (0, 3, 3)])
def test_shares_cover_a_batch_once_and_differ_by_one_image(start: int, stop: int, size: int) -> None:
    shares = [World(rank, size).share(start, stop) for rank in range(size)]
    assert [index for share in shares for index in range(share.start, share.stop)] == list(range(start, stop))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (5, 3, 4, 4)])
def test_global_batchnorm_of_one_process_is_batchnorm(shape: tuple[int, ...], tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        plain = nn.BatchNorm2d(3) if len(shape) == 4 else nn.BatchNorm1d(3)
        ours = copy.deepcopy(nn.Sequential(plain))
        synchronise_batchnorm(ours, torch.device("cpu"))
        assert isinstance(ours[0], GlobalBatchNorm)
        images = torch.randn(shape)
        results = []
        for norm in (plain, ours[0]):
            x = images.clone().requires_grad_()
            out = norm(x)
            out.pow(3).sum().backward()
            results.append((out, x.grad, norm.weight.grad, norm.running_var, norm.eval()(images)))
        for expected, found in zip(*results, strict=True):
            assert torch.allclose(expected, found, atol=1e-4)
    finally:
        dist.destroy_process_group()


SHARES = ((0, 2), (2, 2), (2, 7))  # of seven images; one process has none


def _share_of_batchnorm(rank: int, folder: str) -> None:
    """One process's part of a batch, forwards and backwards, to a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(SHARES))
    norm, images, upstream = _norm_and_images()
    ours = nn.Sequential(norm)
    synchronise_batchnorm(ours, torch.device("cpu"))
    part = slice(*SHARES[rank])
    x = images[part].clone().requires_grad_()
    out = ours(x)
    out.backward(upstream[part])
    found = (out.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _norm_and_images() -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.uniform_(norm.bias)
    return norm, torch.randn(7, 3, 4, 5) * 3 + 100, torch.randn(7, 3, 4, 5)


def test_batchnorm_over_uneven_shares_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_share_of_batchnorm, (str(tmp_path),), nprocs=len(SHARES))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(SHARES))]
    out, of_x, of_weight, of_bias, running_mean, running_var = zip(*parts, strict=True)
    norm, images, upstream = _norm_and_images()
    x = images.clone().requires_grad_()
    expected = norm(x)
    expected.backward(upstream)
    assert torch.allclose(torch.cat(out), expected, atol=1e-5)
    assert torch.allclose(torch.cat(of_x), x.grad, atol=1e-5)
    assert torch.allclose(sum(of_weight), norm.weight.grad, atol=1e-4)
    assert torch.allclose(sum(of_bias), norm.bias.grad, atol=1e-4)
    for found, whole in ((running_mean, norm.running_mean), (running_var, norm.running_var)):
        assert all(torch.allclose(one, whole, rtol=1e-5) for one in found)


class _Spare(nn.Module):
    """A layer of it is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def test_layers_that_are_not_used_are_found() -> None:
    model = _Spare()
    assert _leaves_unused(model, torch.randn(2, 4))
    assert model.training
    assert not _leaves_unused(model.used, torch.randn(2, 4))


def test_only_what_can_be_is_synchronised() -> None:
    model = build("resnet20-cifar", num_classes=4, in_channels=1, width=0.25)
    model.add_module("odd", nn.BatchNorm2d(4, affine=False))
    synchronise_batchnorm(model, torch.device("cpu"))
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert kinds.count(GlobalBatchNorm) == 21
    assert kinds.count(nn.BatchNorm2d) == 1
