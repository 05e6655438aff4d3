"""In what order an epoch takes the images of a split."""

import torch
from torch import Tensor

from pipeline.core.distributed import world_size
from pipeline.core.errors import UserError


class EpochOrder:
    """Whole batches of ``count`` images, shuffled; where images are few an epoch passes over them several times.

    Fewer images than a batch make one batch of all that processes can share equally.

    Args:
        batch_size: images in a batch, of all processes together.
        min_steps: batches of an epoch at least.

    Raises:
        UserError: there are fewer images than processes.
    """

    def __init__(self, count: int, batch_size: int, *, min_steps: int) -> None:
        if count < world_size():
            raise UserError(
                f"execution.num_processes: got {world_size()} processes for {count} training image(s); give fewer"
            )
        self.count = count
        self.batch_size = min(batch_size, count - count % world_size())
        self.num_passes = -(-min_steps // (count // self.batch_size))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.num_passes * (self.count // self.batch_size)

    def positions(self, seed: int) -> Tensor:
        """Return the positions of the images of an epoch, batch after batch, (len * batch_size,); ``seed`` decides."""
        generator = torch.Generator().manual_seed(seed)
        used = self.count - self.count % self.batch_size
        passes = [torch.randperm(self.count, generator=generator)[:used] for _ in range(self.num_passes)]
        return torch.cat(passes)
