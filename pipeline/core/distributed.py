"""Several processes that train together, one device each: who they are, and what they tell each other.

Whatever they exchange leaves one process alone as it is, so that nothing here needs to be asked for.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from pipeline.core.arrays import Outputs
from pipeline.core.errors import LostPeerError, UserError
from pipeline.core.printable import first_line

Value = TypeVar("Value")
LOST_BY_GLOO = re.compile(
    r"gloo.*(Connection (closed|reset|refused|timed out)|Broken pipe|No route to host|Network is (down|unreachable)"
    r"|Socket (unexpectedly )?closed|Pair is not connected|(Read|Write|Connect) timeout|timed out connecting"
    r"|timeout caused pair closure|Timed out waiting \d+ms for (send|recv) operation|connectFullMesh failed)",
    re.IGNORECASE | re.DOTALL,
)
"""What gloo says, behind the file of its own that says it, where another process does not answer (transport/tcp)."""
LOST_BY_NCCL = re.compile(r"ncclRemoteError|ncclSystemError|communicator was aborted|collective operation timeout")
"""What PyTorch says of NCCL then; of ncclSystemError it says itself that a peer that has ended may be the cause."""
NO_INTERFACE = re.compile(r"gloo.*Unable to find (address|interface) for", re.IGNORECASE | re.DOTALL)


def was_launched() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started with this one, for as long as the block lasts; alone, do nothing.

    Raises:
        LostPeerError: the connection to another of them broke.
        UserError: the network interface that the environment names is none.
    """
    if not was_launched():
        yield
        return
    with _lost_peers_named():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        yield
        distributed.destroy_process_group()  # not after an error, where NCCL might wait for the others


@contextlib.contextmanager
def _lost_peers_named() -> Iterator[None]:
    """Turn what PyTorch says of a connection that broke into a LostPeerError; gloo says it by its messages alone.

    What gloo and NCCL say of other things, as of shapes that do not fit or of memory, is left as it is.
    """
    try:
        yield
    except RuntimeError as error:
        if NO_INTERFACE.search(str(error)):
            name = os.environ.get("GLOO_SOCKET_IFNAME")
            raise UserError(
                f"GLOO_SOCKET_IFNAME: got {name!r}, no network interface with an address ({first_line(error)}); give "
                "the name of one, as ip -brief address lists them, or none"
            ) from error
        of_store = isinstance(error, distributed.DistNetworkError | distributed.DistStoreError)
        if not of_store and not LOST_BY_GLOO.search(str(error)) and not LOST_BY_NCCL.search(str(error)):
            raise
        raise LostPeerError(
            f"another process of this training is gone, or cannot be reached ({first_line(error)})"
        ) from error


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


def is_first_of_host() -> bool:
    """Return whether this process is the one that sees to the disk of its host."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


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


def all_gather_arrays(batches: Sequence[Outputs]) -> list[Sequence[Outputs]]:
    """Return the ``batches`` of each process, in their order."""
    if world_size() == 1:
        return [batches]
    own = _as_bytes([{name: torch.from_numpy(array) for name, array in batch.items()} for batch in batches])
    sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(world_size())]
    distributed.all_gather(sizes, torch.tensor([len(own)], device=own.device))
    padded = torch.cat([own, own.new_zeros(max(map(int, sizes)) - len(own))])
    shards = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(shards, padded)
    found = [_from_bytes(shard[: int(size)]) for shard, size in zip(shards, sizes, strict=True)]
    return [[{name: tensor.numpy() for name, tensor in batch.items()} for batch in part] for part in found]


def broadcast(value: Value) -> Value:
    """Return the main process's ``value``, which holds tensors and plain Python values."""
    if world_size() == 1:
        return value
    data = _as_bytes(value)
    size = torch.tensor([len(data)], device=data.device)
    distributed.broadcast(size, 0)
    if not is_main():
        data = data.new_empty(int(size))
    distributed.broadcast(data, 0)
    return value if is_main() else _from_bytes(data)


def _as_bytes(value: object) -> Tensor:
    """Return ``value`` as bytes on the device of this process, which need not be unpickled: others could send code."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    data = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    return data.cuda() if distributed.get_backend() == "nccl" else data


def _from_bytes(data: Tensor) -> Any:
    return torch.load(io.BytesIO(data.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
