"""Training batches that worker processes decode from the files of an index."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.core.distributed import local_shard, world_size
from pipeline.core.torch_setup import derive_seed
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import Batch, Mix, mixed
from pipeline.data.dataset import ImageIndex
from pipeline.data.decoding import decode_image
from pipeline.data.epoch_order import EpochOrder
from pipeline.data.image_workers import ImageWorkers, Wanted
from pipeline.data.random_crops import random_crop


class _Images:
    """Images of an index: decoded, cut and resized, uint8 (size, size, 3)."""

    def __init__(self, index: ImageIndex, scale: tuple[float, float] | None) -> None:
        assert index.fit.size is not None
        self.files = index.files
        self.size = index.fit.size
        self.max_megapixels = index.fit.max_megapixels
        self.scale = scale

    def __call__(self, position: int, seed: int) -> Tensor:
        """Return the image at ``position`` of the index, cut as ``seed`` says.

        Raises:
            UserError: its file cannot be read, or is not as it was.
        """
        name, data = self.files.read(position)
        if self.scale is None:
            return torch.from_numpy(np.array(decode_image(name, data, (self.size, self.size), self.max_megapixels)))
        return random_crop(name, data, size=self.size, scale=self.scale, seed=seed, max_megapixels=self.max_megapixels)


class StreamedBatches:
    """Training batches of an index, decoded by ``num_workers`` processes, several batches ahead.

    What an image looks like depends on the seed and its place in the epoch, not on the number of workers.

    Args:
        batch_size, min_steps, leaves_none_out: see ``EpochOrder``.
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
        min_steps: int = 1,
        leaves_none_out: bool = False,
    ) -> None:
        images = _Images(index, crop_scale)
        self.order = EpochOrder(len(index.files), batch_size, min_steps=min_steps, leaves_none_out=leaves_none_out)
        self.batch_size = self.order.batch_size
        shape = (self.batch_size // world_size(), images.size, images.size, 3)
        self.workers = ImageWorkers(images, num_workers=num_workers, shape=shape)
        self.targets = index.targets.to(device)
        self.device = device
        self.augmentation = augmentation
        self.mix = mix

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.order)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order, augmentation and mixing.

        Raises:
            UserError: a file of the index can no longer be read, or has changed.
            LostProcessError: a process that decodes was killed.
        """
        used = len(self) * self.batch_size
        draws = self.augmentation.draw(used, derive_seed(seed, "augment"), self.device)
        for number, (loaded, positions) in enumerate(self.decoded(seed)):
            shard = local_shard(number * self.batch_size, self.batch_size)
            images, targets = self._on_device(loaded), self.targets.select(positions.to(self.device))
            batch = Batch(self.augmentation(images, draws.rows(shard)), targets, number)
            yield mixed(batch, self.mix, derive_seed(seed, "mix", number))

    def decoded(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images (B, size, size, 3) of each batch, uint8, and their positions (B,) in the index.

        The images last until the next ones are asked for.
        """
        used = len(self) * self.batch_size
        order = self.order.positions(seed)
        shards = [local_shard(start, self.batch_size) for start in range(0, used, self.batch_size)]
        wanted = (Wanted(order[shard].tolist(), shard.start, seed) for shard in shards)
        for shard, images in zip(shards, self.workers.load(wanted), strict=True):
            yield images, order[shard]

    def _on_device(self, images: Tensor) -> Tensor:
        """Return ``images`` on the device, where what reads them is queued after the copy."""
        if self.device.type != "cuda":
            return images.to(self.device)
        return images.pin_memory().to(self.device, non_blocking=True)
