"""Training batches of whatever ``prepare_data`` wrote."""

from pathlib import Path
from typing import Any

import torch

from pipeline.core.distributed import num_processes, local_world_size
from pipeline.core.errors import UserError
from pipeline.core.processes import num_cores
from pipeline.data.dataset import read_index, read_info, read_split
from pipeline.data.packed_batches import PackedBatches, TrainingBatches


def open_training_batches(
    folder: Path, *, batch_size: int, augment: dict[str, Any], device: torch.device
) -> TrainingBatches:
    """Return the training batches of the data in ``folder``.

    Args:
        batch_size: images in a batch, of all processes together.
        augment: the parameters ``augment`` of a training.

    Raises:
        UserError: the files are missing or damaged, there are fewer images than a batch has, or processes cannot have
            equal shares of one.
    """
    info = read_info(folder)
    if batch_size % num_processes():
        raise UserError(
            f"batch_size: got {batch_size}, which {num_processes()} processes cannot share equally; give a multiple"
        )
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "num_classes": len(info.classes)}
    if info.storage == "packed":
        packed = {name: value for name, value in augment.items() if name != "resized_crop_scale"}
        return PackedBatches(read_split(folder, "train"), **options, augment=packed)
    from pipeline.data.streamed_batches import IndexedBatches  # noqa: PLC0415  (imports torchvision, which takes seconds)

    index = read_index(folder)
    if len(index.files) < batch_size:
        raise UserError(f"batch_size: got {batch_size}, but there are {len(index.files)} training images; lower it")
    return IndexedBatches(index, **options, augment=augment, num_workers=max(1, num_cores() // local_world_size()))
