"""Several processes that train together, one device each: who they are, and what they tell each other.

Whatever they exchange leaves one process alone as it is, so that nothing here needs to be asked for.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")


def was_launched() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started with this one, for as long as the block lasts; alone, do nothing."""
    if not was_launched():
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def world_size() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_world_size() -> int:
    """Return how many of the processes that train together are on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Return whether this process is the one that writes and reports."""
    if distributed.is_initialized():
        return distributed.get_rank() == 0
    return not was_launched() or os.environ["RANK"] == "0"


def local_shard(start: int, count: int) -> slice:
    """Return this process's shard of the ``count`` positions from ``start`` on; shards are disjoint and cover all."""
    if world_size() == 1:
        return slice(start, start + count)
    rank, size = distributed.get_rank(), world_size()
    return slice(start + count * rank // size, start + count * (rank + 1) // size)


def all_gather(x: Tensor, dim: int = 0) -> Tensor:
    """Return the shards ``x`` of all processes, joined along ``dim``; gradients flow back to each."""
    return x if world_size() == 1 else _AllGather.apply(x, dim)


class _AllGather(torch.autograd.Function):
    """PyTorch's own gather mixes up the gradients of tensors that are not contiguous, as channels-last maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.count = dim, x.shape[dim]
        shards = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(shards, x.contiguous())
        return torch.cat(shards, dim=dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _total(gradients[0]).narrow(ctx.dim, distributed.get_rank() * ctx.count, ctx.count), None


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over all processes; gradients flow back to each."""
    return x if world_size() == 1 else _AllReduceSum.apply(x)


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return _total(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _total(gradients[0])


def _total(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def all_gather_objects(value: Value) -> list[Value]:
    """Return the ``value`` of each process, in their order."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, value)
    return found


def broadcast(value: Value) -> Value:
    """Return the main process's ``value``."""
    if world_size() == 1:
        return value
    holder: list[Any] = [value]
    distributed.broadcast_object_list(holder)
    return holder[0]  # type: ignore[no-any-return]
