"""Training batches that worker processes decode from the files of an index."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.core.distributed import local_shard, world_size
from pipeline.core.torch_setup import derive_seed
from pipeline.data.augmentation import Augmentation, Geometry
from pipeline.data.batch import Batch, Mix, mixed, moved_along
from pipeline.data.dataset import ImageIndex
from pipeline.data.epoch_order import EpochOrder
from pipeline.data.image_workers import ImageWorkers, Read, Wanted


class StreamedBatches:
    """Training batches of an index, decoded by ``num_workers`` processes, several batches ahead.

    What an image looks like depends on the seed and its place in the epoch, not on the number of workers.

    Args:
        batch_size, min_steps, leaves_none_out: see ``EpochOrder``.
        read: reads its images, of the size that it is to bring them to.
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
        read: Read,
        augmentation: Augmentation,
        mix: Mix | None,
        min_steps: int = 1,
        leaves_none_out: bool = False,
    ) -> None:
        self.order = EpochOrder(len(index.files), batch_size, min_steps=min_steps, leaves_none_out=leaves_none_out)
        self.batch_size = self.order.batch_size
        assert index.fit.size is not None
        self.image_size = index.fit.size
        shape = (self.batch_size // world_size(), *self.image_size, 3)
        self.workers = ImageWorkers(read, num_workers=num_workers, shape=shape)
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
        for number, (loaded, views, positions) in enumerate(self.decoded(seed)):
            shard = local_shard(number * self.batch_size, self.batch_size)
            images, targets = self._on_device(loaded), self.targets.select(positions.to(self.device))
            scale_x, shift_x, scale_y, shift_y = views.to(self.device, torch.float32, copy=True).unbind(dim=1)
            seen = Geometry(scale_x, shift_x, scale_y, shift_y, self.image_size)
            steps = [seen, *self.augmentation.geometries(draws.rows(shard), self.image_size)]
            batch = Batch(self.augmentation(images, draws.rows(shard)), moved_along(targets, steps), number)
            yield mixed(batch, self.mix, derive_seed(seed, "mix", number))

    def decoded(self, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the images (B, H, W, 3) of each batch, uint8, their views (B, 4) and positions (B,) in the index.

        Images and views last until the next ones are asked for.
        """
        used = len(self) * self.batch_size
        order = self.order.positions(seed)
        shards = [local_shard(start, self.batch_size) for start in range(0, used, self.batch_size)]
        wanted = (Wanted(order[shard].tolist(), shard.start, seed) for shard in shards)
        for shard, (images, views) in zip(shards, self.workers.load(wanted), strict=True):
            yield images, views, order[shard]

    def _on_device(self, images: Tensor) -> Tensor:
        """Return ``images`` on the device, where what reads them is queued after the copy."""
        if self.device.type != "cuda":
            return images.to(self.device)
        return images.pin_memory().to(self.device, non_blocking=True)
