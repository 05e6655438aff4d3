"""CIFAR-10 and CIFAR-100 in their original binary form, through torchvision."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets

from pipeline.data.splits import ImageSet, ImageSource, Indices
from pipeline.errors import UserError

DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


def cifar_source(name: str, root: Path, *, download: bool) -> ImageSource:
    """Return ``cifar10`` or ``cifar100`` from the folder ``root``, downloaded into it first where ``download`` says so.

    Raises:
        UserError: the files are missing or damaged.
    """
    try:
        splits = {split: DATASETS[name](root, train=split == "train", download=download) for split in ("train", "test")}
    except RuntimeError as error:
        raise UserError(
            f"{root}: {name} is missing or damaged there ({' '.join(str(error).split())}); "
            "set prepare_data.download to true, or give the folder that holds its extracted python version"
        ) from error
    except OSError as error:
        raise UserError(f"{root}: {name} could not be downloaded or read ({error})") from error
    return ImageSource(
        tuple(splits["train"].classes), {split: _image_set(name, data) for split, data in splits.items()}
    )


def _image_set(name: str, data: datasets.CIFAR10) -> ImageSet:
    def read(positions: Indices) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for position in positions:
            yield f"{name} image {position}", data.data[position]

    return ImageSet(np.array(data.targets, dtype=np.int64), read)
