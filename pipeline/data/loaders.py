"""Training batches of whatever ``prepare_data`` wrote."""

from pathlib import Path

import torch

from pipeline.core.distributed import local_world_size, world_size
from pipeline.core.errors import UserError
from pipeline.core.processes import num_cores
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import Mix, ReadTargets, TrainingBatches
from pipeline.data.dataset import read_index, read_info, read_split
from pipeline.data.image_workers import Read
from pipeline.data.packed_batches import PackedBatches
from pipeline.data.settings import Augment
from pipeline.data.trivial_augment import FARTHEST


def open_training_batches(
    folder: Path,
    read_targets: ReadTargets,
    *,
    batch_size: int,
    min_steps: int = 1,
    leaves_none_out: bool = False,
    augment: Augment,
    mix: Mix | None,
    device: torch.device,
) -> TrainingBatches:
    """Return the training batches of the data in ``folder``.

    Args:
        read_targets: the task's reader of targets.
        batch_size: images in a batch, of all processes together.
        min_steps, leaves_none_out: see ``EpochOrder``.
        mix: mixes the images of a batch; None: nothing does.

    Raises:
        UserError: the files are missing or damaged, or processes cannot have equal shards of a batch.
    """
    if batch_size % world_size():
        raise UserError(
            f"batch_size: got {batch_size}, which {world_size()} processes cannot share equally; give a multiple"
        )
    info = read_info(folder)
    if augment.trivial_augment and min(info.image_size) < FARTHEST:
        raise UserError(
            f"augment.trivial_augment: moves images by up to {FARTHEST} pixels, which these do not have "
            f"({info.image_size[1]} x {info.image_size[0]}); set it to false, or prepare_data.image_size to more"
        )
    if augment.scale_jitter is not None and (info.storage != "index" or info.resize != "letterbox"):
        raise UserError(
            f"augment.scale_jitter: got {list(augment.scale_jitter)}, but only images with objects are scaled, while "
            "they are decoded for training: set it to null, or prepare_data.storage to index"
        )
    augmentation = Augmentation(
        crop_padding=augment.crop_padding,
        horizontal_flip=augment.horizontal_flip,
        color_jitter=augment.color_jitter,
        trivial_augment=augment.trivial_augment,
        random_erasing=augment.random_erasing,
        erased=info.mean,
        crop_scale=augment.resized_crop_scale if info.storage == "packed" else None,  # files are cut as they are read
    )
    if info.storage == "packed":
        split = read_split(folder, "train", read_targets)
        return PackedBatches(
            split,
            batch_size=batch_size,
            device=device,
            augmentation=augmentation,
            mix=mix,
            min_steps=min_steps,
            leaves_none_out=leaves_none_out,
        )
    from pipeline.data.index_readers import LetterboxReader, SquareReader
    from pipeline.data.streamed_batches import StreamedBatches

    index, crop_scale = read_index(folder, read_targets), augment.resized_crop_scale
    if info.resize == "letterbox":
        read: Read = LetterboxReader(index, scale_jitter=augment.scale_jitter, crop_scale=crop_scale)
    else:
        read = SquareReader(index, crop_scale)
    return StreamedBatches(
        index,
        read=read,
        batch_size=batch_size,
        device=device,
        num_workers=max(1, num_cores() // local_world_size()),
        augmentation=augmentation,
        mix=mix,
        min_steps=min_steps,
        leaves_none_out=leaves_none_out,
    )
