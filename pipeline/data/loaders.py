"""Training batches of whatever ``prepare_data`` wrote."""

from pathlib import Path

import torch

from pipeline.core.distributed import local_world_size, world_size
from pipeline.core.errors import UserError
from pipeline.core.processes import num_cores
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import Mix, ReadTargets, TrainingBatches
from pipeline.data.dataset import read_index, read_info, read_split
from pipeline.data.packed_batches import PackedBatches
from pipeline.data.settings import Augment


def open_training_batches(
    folder: Path,
    read_targets: ReadTargets,
    *,
    batch_size: int,
    augment: Augment,
    mix: Mix | None,
    device: torch.device,
) -> TrainingBatches:
    """Return the training batches of the data in ``folder``.

    Args:
        read_targets: the task's reader of targets.
        batch_size: images in a batch, of all processes together.
        mix: mixes the images of a batch; None: nothing does.

    Raises:
        UserError: the files are missing or damaged, there are fewer images than a batch has, or processes cannot have
            equal shards of one.
    """
    if batch_size % world_size():
        raise UserError(
            f"batch_size: got {batch_size}, which {world_size()} processes cannot share equally; give a multiple"
        )
    augmentation = Augmentation(
        crop_padding=augment.crop_padding, horizontal_flip=augment.horizontal_flip, color_jitter=augment.color_jitter
    )
    if read_info(folder).storage == "packed":
        split = read_split(folder, "train", read_targets)
        return PackedBatches(split, batch_size=batch_size, device=device, augmentation=augmentation, mix=mix)
    from pipeline.data.streamed_batches import StreamedBatches  # imports torchvision, which takes seconds

    index = read_index(folder, read_targets)
    if len(index.files) < batch_size:
        raise UserError(f"batch_size: got {batch_size}, but there are {len(index.files)} training images; lower it")
    return StreamedBatches(
        index,
        batch_size=batch_size,
        device=device,
        num_workers=max(1, num_cores() // local_world_size()),
        crop_scale=augment.resized_crop_scale,
        augmentation=augmentation,
        mix=mix,
    )
