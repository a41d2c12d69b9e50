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
from onnx_shift.exporter.distributed import GlobalBatchNorm, World, local_batchnorm, synchronise_batchnorm
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
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=240, env=one_thread
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("level-01.onnx") == 1  # the leading process alone talks
    one, two = (
        load_checkpoint(folder / name / f"checkpoints/round-{round_:02d}.pt") for name in ("one", "two")
    )
    return one, two


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    for round_ in (0, 1):
        one, two = _checkpoints(tmp_path, "imp", round_)
        assert all(torch.equal(one["mask"][name], two["mask"][name]) for name in one["mask"])
        assert abs(one["history"][-1]["loss"] - two["history"][-1]["loss"]) < 1e-5
        for name, value in one["model"].items():
            assert torch.allclose(value.float(), two["model"][name].float(), rtol=1e-4, atol=1e-5), name


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
            alone = (
                local_batchnorm(copy.deepcopy(ours.eval()))(images)
                if norm is ours[0]
                else plain.eval()(images)
            )
            results.append((out, x.grad, norm.weight.grad, norm.running_var, norm.eval()(images), alone))
        for expected, found in zip(*results, strict=True):
            assert torch.allclose(expected, found, atol=1e-4)
    finally:
        dist.destroy_process_group()


def test_only_what_can_be_is_synchronised() -> None:
    model = build("resnet20-cifar", num_classes=4, in_channels=1, width=0.25)
    model.add_module("odd", nn.BatchNorm2d(4, affine=False))
    synchronise_batchnorm(model, torch.device("cpu"))
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert kinds.count(GlobalBatchNorm) == 21
    assert kinds.count(nn.BatchNorm2d) == 1
