"""Batches of images: of a packed split, drawn and augmented on the device, or decoded on the fly."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from pipeline.core.distributed import num_processes, local_shard
from pipeline.core.torch_setup import derive_seed
from pipeline.data.augmentation import Batch, build_augmentation, to_unit_range
from pipeline.data.dataset import Split


class TrainingBatches(Protocol):
    """Shuffled, augmented batches of a training split; every epoch has its own order.

    A last incomplete batch is left out, since batch statistics of a few images mislead. Where several processes train
    together each gets its share of every batch.
    """

    batch_size: int
    """Images in a batch, of all processes together."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order and augmentation."""


def ordered_batches(split: Split, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the whole split in its order; the last batch may be smaller."""
    for images, labels in zip(
        torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True
    ):
        yield Batch(to_unit_range(images.to(device)), labels.to(device))


class PackedBatches:
    """Training batches of a packed split, which stays on the device whole, as uint8.

    A split smaller than ``batch_size`` makes one batch.

    Args:
        augment: what ``pipeline.data.augmentation.build_augmentation`` takes.
    """

    def __init__(
        self, split: Split, *, batch_size: int, device: torch.device, num_classes: int, augment: dict[str, Any]
    ) -> None:
        self.images = split.images.to(device).permute(0, 2, 3, 1).contiguous()  # (N, H, W, 3)
        self.labels = split.labels.to(device)
        self.batch_size = min(batch_size, len(split) - len(split) % num_processes())
        self.augment, self.mix = build_augmentation(num_classes=num_classes, **augment)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order and augmentation."""
        used = len(self) * self.batch_size
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.labels), generator=generator)[:used].to(self.labels.device)
        draws = self.augment.draw(used, derive_seed(seed, "augment"), self.labels.device)
        for start in range(0, used, self.batch_size):
            share = local_shard(start, self.batch_size)
            chosen = order[share]
            batch = Batch(self.augment(self.images[chosen], draws.rows(share)), self.labels[chosen])
            yield self.mix(batch) if self.mix else batch
