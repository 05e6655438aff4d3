"""Images with what is to be predicted of them, on the device."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from pipeline.core.arrays import Truth
from pipeline.data.augmentation import Geometry


class Targets(Protocol):
    """What is to be predicted of some images; its form is the task's."""

    def __len__(self) -> int:
        """Return the number of images."""

    def select(self, positions: Tensor | slice) -> Self:
        """Return the targets of the images at ``positions``."""

    def to(self, device: torch.device) -> Self:
        """Return the same on ``device``."""

    def truth(self) -> Truth:
        """Return the same as NumPy arrays, by the task's names."""

    def moved(self, geometry: Geometry) -> Self:
        """Return the targets of the same images once their pixels are moved."""


ReadTargets = Callable[[Mapping[str, Tensor]], Targets]
"""From the tensors of a file, by the task's names, to targets; raises KeyError where one is missing."""


def moved_along(targets: Targets, steps: Iterable[Geometry]) -> Targets:
    """Return ``targets`` once the pixels are moved by each of ``steps``."""
    for step in steps:
        targets = targets.moved(step)
    return targets


class Batch(NamedTuple):
    """Images and targets on the device."""

    images: Tensor
    """float32 in [0, 1], (B, 3, H, W), channels last in memory."""
    targets: Targets
    number: int = 0
    """In its epoch, counted from 0."""


Mix = Callable[[Batch], Batch]
"""Mixes the images of a batch with each other; draws from PyTorch's generator of the CPU."""


def mixed(batch: Batch, mix: Mix | None, seed: int) -> Batch:
    """Return ``batch``, mixed by ``mix`` as ``seed`` says, whatever else has drawn random numbers."""
    if mix is None:
        return batch
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return mix(batch)._replace(number=batch.number)


class TrainingBatches(Protocol):
    """Shuffled, augmented batches of a training split; every epoch has its own order (``EpochOrder``).

    A last incomplete batch is left out, since batch statistics of a few images mislead. Where several processes train
    together each gets its shard of every batch.
    """

    batch_size: int
    """Images in a batch, of all processes together."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order, augmentation and mixing."""
