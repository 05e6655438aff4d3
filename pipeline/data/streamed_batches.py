"""Training batches that worker processes decode from the files of an index."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pipeline.core.distributed import local_shard
from pipeline.core.errors import UserError
from pipeline.core.torch_setup import derive_seed
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import Batch, Mix
from pipeline.data.dataset import ImageIndex
from pipeline.data.reading import fitted, read_image

PREFETCHED = 4
"""Batches that each worker decodes ahead."""
RATIO = (3 / 4, 4 / 3)
"""Width to height of a random crop (Szegedy et al. 2015)."""

Item = tuple[Tensor | UserError, int]
"""An image, or why it cannot be read; and its position in the index."""


class _Images(Dataset[Item]):
    """Images of an index: decoded, cut and resized, uint8 (size, size, 3); or why one cannot be read.

    Names are kept as one array, since workers would copy a list of strings page by page as they count references.
    """

    def __init__(self, index: ImageIndex, scale: tuple[float, float] | None) -> None:
        self.root = index.root
        self.files = np.array([os.fsencode(file) for file in index.files])
        self.size = index.size
        self.crop = scale and v2.RandomResizedCrop(index.size, scale=scale, ratio=RATIO, antialias=True)
        self.seed = 0
        """Of the epoch."""

    def __getitem__(self, wanted: tuple[int, int]) -> Item:
        """Return the image at the first of ``wanted`` in the index, which has the second place in the epoch."""
        position, place = wanted
        file = Path(self.root, os.fsdecode(self.files[position]))
        try:
            image = read_image(str(file), file)
        except UserError as error:
            return error, position
        if self.crop is None:
            cut = fitted(image, self.size)
        else:
            with torch.random.fork_rng(devices=[]):  # where there are no workers, training draws from it too
                torch.manual_seed(derive_seed(self.seed, place))
                cut = self.crop(Picture.fromarray(image))
        return torch.from_numpy(np.array(cut)), position


def _together(items: list[Item]) -> tuple[Tensor, Tensor] | UserError:
    """Return images (B, size, size, 3) and their positions (B,), or the first fault, which PyTorch would bury."""
    images = [image for image, _ in items if isinstance(image, Tensor)]
    if len(images) < len(items):
        return next(image for image, _ in items if isinstance(image, UserError))
    return torch.stack(images), torch.tensor([position for _, position in items])


class StreamedBatches:
    """Training batches of an index, decoded by ``num_workers`` processes (0: by this one), several batches ahead.

    What an image looks like depends on the seed and its place in the epoch, not on the number of workers.

    Args:
        crop_scale: smallest and largest share of an image's area that a random crop takes; None: the central square.
        augmentation: changes images one by one.
        mix: mixes those of a batch; None: nothing does.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        batch_size: int,
        device: torch.device,
        num_workers: int,
        crop_scale: tuple[float, float] | None,
        augmentation: Augmentation,
        mix: Mix | None,
    ) -> None:
        self.images = _Images(index, crop_scale)
        self.targets = index.targets.to(device)
        self.batch_size = batch_size
        self.count = len(index.files)
        self.device = device
        self.num_workers = num_workers
        self.augmentation = augmentation
        self.mix = mix

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.count // self.batch_size

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order and augmentation.

        Raises:
            UserError: a file of the index can no longer be read.
        """
        used = len(self) * self.batch_size
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))[:used]
        draws = self.augmentation.draw(used, derive_seed(seed, "augment"), self.device)
        shards = [local_shard(start, self.batch_size) for start in range(0, used, self.batch_size)]
        wanted = (list(zip(order[s].tolist(), range(s.start, s.stop), strict=True)) for s in shards)
        self.images.seed = seed
        for shard, loaded in zip(shards, self._loader(wanted), strict=True):
            if isinstance(loaded, UserError):
                raise loaded
            images, positions = (tensor.to(self.device, non_blocking=True) for tensor in loaded)
            batch = Batch(self.augmentation(images, draws.rows(shard)), self.targets.select(positions))
            yield self.mix(batch) if self.mix else batch

    def _loader(self, wanted: Iterable[list[tuple[int, int]]]) -> DataLoader[Item]:
        return DataLoader(
            self.images,
            batch_sampler=wanted,
            num_workers=self.num_workers,
            prefetch_factor=PREFETCHED if self.num_workers else None,
            collate_fn=_together,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(self.images.seed),  # else it draws from the one that training uses
        )
