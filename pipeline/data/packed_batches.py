"""Batches of a packed split, drawn and augmented on the device."""

from collections.abc import Iterator

import torch

from pipeline.core.distributed import local_shard
from pipeline.core.torch_setup import derive_seed
from pipeline.data.augmentation import Augmentation, to_unit_range
from pipeline.data.batch import Batch, Mix, mixed, moved_along
from pipeline.data.dataset import Split
from pipeline.data.epoch_order import EpochOrder


def ordered_batches(split: Split, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the whole split in its order; the last batch may be smaller."""
    for start in range(0, len(split), batch_size):
        part = split.select(slice(start, start + batch_size))
        yield Batch(to_unit_range(part.images.to(device)), part.targets.to(device))


class PackedBatches:
    """Training batches of a packed split, which stays on the device whole, as uint8.

    Args:
        batch_size, min_steps, leaves_none_out: see ``EpochOrder``.
        augmentation: changes images one by one.
        mix: mixes those of a batch; None: nothing does.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        augmentation: Augmentation,
        mix: Mix | None,
        min_steps: int = 1,
        leaves_none_out: bool = False,
    ) -> None:
        self.images = split.images.to(device).permute(0, 2, 3, 1).contiguous()  # (N, H, W, 3)
        self.targets = split.targets.to(device)
        self.order = EpochOrder(len(split), batch_size, min_steps=min_steps, leaves_none_out=leaves_none_out)
        self.batch_size = self.order.batch_size
        self.augmentation = augmentation
        self.mix = mix

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.order)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order, augmentation and mixing."""
        used, device = len(self) * self.batch_size, self.images.device
        size = self.images.shape[1], self.images.shape[2]
        order = self.order.positions(seed).to(device)
        draws = self.augmentation.draw(used, derive_seed(seed, "augment"), device)
        for number, start in enumerate(range(0, used, self.batch_size)):
            shard = local_shard(start, self.batch_size)
            chosen = order[shard]
            images = self.augmentation(self.images[chosen], draws.rows(shard))
            steps = self.augmentation.geometries(draws.rows(shard), size)
            batch = Batch(images, moved_along(self.targets.select(chosen), steps), number)
            yield mixed(batch, self.mix, derive_seed(seed, "mix", number))
