"""CIFAR-10 and CIFAR-100 in their original binary form, through torchvision."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torchvision import datasets

from pipeline.core.errors import UserError
from pipeline.data.splits import ImageSet, ImageSource, images_in_memory

DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


@contextlib.contextmanager
def open_cifar10(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: FBT001  (signature of Open)
    """Yield CIFAR-10; see ``cifar_source``."""
    assert root is not None
    yield cifar_source("cifar10", root, download=download)


@contextlib.contextmanager
def open_cifar100(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: FBT001  (signature of Open)
    """Yield CIFAR-100; see ``cifar_source``."""
    assert root is not None
    yield cifar_source("cifar100", root, download=download)


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
    return images_in_memory(np.array(data.targets, dtype=np.int64), f"{name} image", lambda i: data.data[i])
