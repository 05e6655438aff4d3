"""In what order an epoch takes the images of a split."""

import torch
from torch import Tensor

from pipeline.core.distributed import world_size
from pipeline.core.errors import UserError


class EpochOrder:
    """Whole batches of ``count`` images, shuffled; where images are few an epoch passes over them several times.

    Fewer images than a batch make one batch of all that processes can share equally. What is left of a pass and fills
    no batch is left out, others each time.

    Args:
        batch_size: images in a batch, of all processes together.
        min_steps: batches of an epoch at least.
        leaves_none_out: whether what is left of a pass stays, and the next pass fills its batch up; for epochs that
            come again as they were.

    Raises:
        UserError: there are fewer images than processes.
    """

    def __init__(self, count: int, batch_size: int, *, min_steps: int, leaves_none_out: bool = False) -> None:
        if count < world_size():
            raise UserError(
                f"execution.num_processes: got {world_size()} processes for {count} training image(s); give fewer"
            )
        self.count = count
        self.batch_size = min(batch_size, count - count % world_size())
        self.used = count if leaves_none_out else count - count % self.batch_size
        """Images of a pass."""
        self.num_passes = -(-min_steps // (count // self.batch_size))
        self.num_batches = -(-self.num_passes * self.used // self.batch_size)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.num_batches

    def positions(self, seed: int) -> Tensor:
        """Return the positions of the images of an epoch, batch after batch, (len * batch_size,); ``seed`` decides."""
        generator = torch.Generator().manual_seed(seed)
        wanted = len(self) * self.batch_size
        num_passes = -(-wanted // self.used)
        passes = [torch.randperm(self.count, generator=generator)[: self.used] for _ in range(num_passes)]
        return torch.cat(passes)[:wanted]
