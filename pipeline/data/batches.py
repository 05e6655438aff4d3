"""Batches of packed images, drawn and augmented on the device."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.data.store import Split


class Batch(NamedTuple):
    """Images and labels on the device."""

    images: Tensor
    """float32 in [0, 1], (B, 3, H, W)."""
    labels: Tensor
    """int64, (B,)."""


def to_unit_range(images: Tensor) -> Tensor:
    """Return uint8 ``images`` as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def ordered_batches(split: Split, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the whole split in its order; the last batch may be smaller."""
    for images, labels in zip(
        torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True
    ):
        yield Batch(to_unit_range(images.to(device)), labels.to(device))


class TrainingBatches:
    """Shuffled, augmented batches; every epoch and seed has its own order, and the images stay on the device.

    A last incomplete batch is left out, since batch statistics of a few images mislead. A split smaller than
    ``batch_size`` makes one batch.

    Args:
        crop_padding: zero pixels added around an image before a crop of its size is taken at a random place.
        horizontal_flip: mirror each image with probability one half.
    """

    def __init__(
        self, split: Split, *, batch_size: int, crop_padding: int, horizontal_flip: bool, device: torch.device
    ) -> None:
        self.images = split.images.to(device)
        self.labels = split.labels.to(device)
        self.batch_size = min(batch_size, len(split))
        self.crop_padding = crop_padding
        self.horizontal_flip = horizontal_flip

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order and augmentation."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            images = self._augmented(self.images[chosen], generator)
            shown = to_unit_range(images).contiguous(
                memory_format=torch.channels_last
            )  # as the training loop's network
            yield Batch(shown, self.labels[chosen])

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.crop_padding:
            images = random_crop(images, self.crop_padding, generator)
        if self.horizontal_flip:
            mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Return each image (B, C, H, W) shifted by up to ``padding`` pixels each way, zeros moving in at the edges."""
    height, width = images.shape[2:]
    padded = nn.functional.pad(images, (padding,) * 4)  # (B, C, H + 2p, W + 2p)
    offsets = torch.randint(0, 2 * padding + 1, (2, len(images)), generator=generator).to(images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)  # (B, W)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B, C, H, W)
