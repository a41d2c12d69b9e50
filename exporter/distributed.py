"""Several processes training one model: joining them, sharing a batch, and BatchNorm over the whole of it.

`torchrun` starts the processes and tells each its place through the environment; gloo connects processors,
nccl graphics cards. PyTorch's own SyncBatchNorm works on graphics cards alone, hence `GlobalBatchNorm`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from onnx_shift.errors import OnnxShiftError


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def share(self, start: int, stop: int) -> slice:
        """This process's part of the batch start … stop; parts differ by at most one image."""
        count = stop - start
        return slice(start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size)

    def wait(self) -> None:
        """Return when every process has come this far."""
        if self.size > 1:
            dist.barrier()

    def total(self, values: Tensor) -> Tensor:
        """`values` summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, tensors: dict[str, Tensor]) -> None:
        """Overwrite boolean `tensors` with those of the leading process."""
        if self.size > 1:
            for name, tensor in tensors.items():
                sent = tensor.to(torch.uint8)
                dist.broadcast(sent, 0)
                tensors[name] = sent.bool()


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Take this process's place among those that torchrun started; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise OnnxShiftError(f"cannot join the other {size - 1} processes ({error})") from error
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()


class _SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor; the gradient is summed likewise."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed


def _sum_over_processes(tensor: Tensor) -> Tensor:
    summed: Tensor = _SumOverProcesses.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


class LocalBatchNorm(nn.BatchNorm2d):
    """BatchNorm of one process, of any number of dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class GlobalBatchNorm(LocalBatchNorm):
    """BatchNorm whose statistics in training are those of the batch over all processes, on any device."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        x = input.float()
        dims, per_channel = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        count = torch.tensor([x.numel() // x.shape[1]], dtype=x.dtype, device=x.device)
        sums = _sum_over_processes(torch.cat([x.sum(dims), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(per_channel)
        variance = _sum_over_processes(centred.square().sum(dims)) / total
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(per_channel) + self.bias.view(per_channel)).to(input.dtype)


def local_batchnorm(model: nn.Module) -> nn.Module:
    """Make BatchNorm of `model` use the statistics of this process alone, in place; returns it."""
    for module in model.modules():
        if isinstance(module, GlobalBatchNorm | nn.SyncBatchNorm):
            module.__class__ = LocalBatchNorm  # type: ignore[assignment]
    return model


def synchronise_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm of `model` use the statistics of the whole batch, in place; names and weights
    stay.
    """
    if device.type == "cuda":
        for name, child in model.named_children():
            synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
            setattr(model, name, synchronised)
        return
    for module in model.modules():
        plain = type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        if plain and module.affine and module.track_running_stats and module.momentum is not None:
            module.__class__ = GlobalBatchNorm
