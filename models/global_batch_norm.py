"""Batch normalisation over the shards of all processes, so that training in several computes what one would."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from .core.precision import at_least_float32

AllReduceSum = Callable[[Tensor], Tensor]
"""Sum over all processes, through which gradients flow."""


class GlobalBatchNorm(nn.BatchNorm2d):
    """Synchronised batch normalisation on the CPU, where PyTorch has none. Processes must have equal shards.

    Args:
        norm: the layer whose settings, parameters and running statistics are taken over.
        all_reduce_sum: sums over all processes.
        world_size: how many they are.
    """

    all_reduce_sum: AllReduceSum
    world_size: int

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, *, all_reduce_sum: AllReduceSum, world_size: int) -> Self:
        """Return the layer that takes the place of ``norm`` and shares its parameters and running statistics."""
        own = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        own.weight, own.bias = norm.weight, norm.bias
        for name, statistic in norm.named_buffers():
            setattr(own, name, statistic)
        own.all_reduce_sum, own.world_size = all_reduce_sum, world_size
        return own.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised by the statistics of all processes' shards in training."""
        if not self.training:
            return super().forward(x)
        precise = at_least_float32(x)
        var, mean = torch.var_mean(precise, dim=(0, 2, 3), correction=0)  # (C,) each
        own = mean
        mean = self.all_reduce_sum(own) / self.world_size
        var = self.all_reduce_sum(var + (own - mean).square()) / self.world_size
        self._track(mean.detach(), var.detach(), count=self.world_size * x.numel() // x.shape[1])
        scale = torch.rsqrt(var + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = (self.bias if self.affine else 0) - mean * scale
        normalized: Tensor = precise * scale[:, None, None] + shift[:, None, None]
        return normalized.to(x.dtype)

    def _track(self, mean: Tensor, var: Tensor, *, count: int) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / (count - 1)), momentum)  # unbiased, as PyTorch keeps it


def synchronize_batch_norms(network: nn.Module, *, all_reduce_sum: AllReduceSum, world_size: int) -> None:
    """Put synchronised layers in the place of all ``BatchNorm2d`` below ``network``: PyTorch's own on a GPU."""
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, GlobalBatchNorm.of(child, all_reduce_sum=all_reduce_sum, world_size=world_size))
