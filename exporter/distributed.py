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
import torch.nn.functional as F  # noqa: N812
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


class _NormaliseOverProcesses(torch.autograd.Function):
    """BatchNorm by the statistics of the batch over all processes: (N, C, …) to the same shape, with mean and biased
    variance (C,) and the number of values behind them. One exchange forward, one backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        count = x.new_tensor([x.numel() // x.shape[1]], dtype=weight.dtype)
        mean, variance = x.new_zeros((2, x.shape[1]), dtype=weight.dtype)  # of no image: nothing
        if len(x):
            mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        of_all = mean.new_zeros(dist.get_world_size(), 1 + 2 * len(mean))  # a row of each process
        of_all[dist.get_rank()] = torch.cat([count, mean, variance])
        dist.all_reduce(of_all)
        counts, means, variances = of_all.split([1, len(mean), len(mean)], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / total
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, total)
        return _normalise(x, weight, bias, mean, variance, eps), mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, total = ctx.saved_tensors
        # As if mean and variance were constants; then what went through them is taken away.
        through, of_weight, of_bias = x, *torch.zeros_like(weight).expand(2, -1)
        if len(x):
            through, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        sums = torch.cat([of_weight, of_bias])
        dist.all_reduce(sums)
        slope, offset = weight * torch.rsqrt(variance + ctx.eps) * sums.view(2, -1) / total
        through = through - _normalise(x, slope, offset, mean, variance, ctx.eps)
        return through, of_weight, of_bias, None


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps) if len(x) else x.clone()


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of the batch over all processes, on any device and of any
    number of dimensions.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        out, mean, variance, total = _NormaliseOverProcesses.apply(  # type: ignore[no-untyped-call]
            input.float(), self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        return out.to(input.dtype)  # type: ignore[no-any-return]


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
