"""Packed splits, read back as tensors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.files import read_json


@dataclass(frozen=True)
class Split:
    """Images and their labels."""

    images: Tensor
    """uint8, (N, 3, H, W), channels last in memory."""
    labels: Tensor
    """int64, (N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> "Split":
        """Return at most ``count`` of the images, evenly spread over the split, whose order is that of the classes."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self)), dtype=torch.float64).round().long()
        return Split(self.images[chosen], self.labels[chosen])

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Return the images as an array (N, 3, H, W) over the same memory."""
        return np.asarray(self.images)


@dataclass(frozen=True)
class ImageIndex:
    """Image files of any size, decoded when they are needed."""

    root: str
    files: list[str]
    """Below ``root``."""
    labels: list[int]
    size: int
    """Pixels of the square to which images are brought."""


@dataclass(frozen=True)
class DataInfo:
    """What data.json says of the packed images."""

    classes: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    """``none``, or ``central_square``: the shorter side to the image size, then the centre cut out."""
    storage: str
    """How the training split is stored: ``packed`` or ``index``."""


def read_info(folder: Path) -> DataInfo:
    """Return what ``folder``/data.json says.

    Raises:
        UserError: it is missing or not as ``prepare_data`` writes it.
    """
    about = read_json(folder / "data.json")
    try:
        height, width = about["image_size"]
        statistics = tuple(about["mean"]), tuple(about["std"])
        return DataInfo(tuple(about["classes"]), (height, width), *statistics, about["resize"], about["storage"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / 'data.json'}: not as prepare_data writes it ({error!r}); run prepare_data again"
        ) from error


def read_split(folder: Path, name: str) -> Split:
    """Return the split ``name`` (train, calib or test) of the packed data in ``folder``.

    Raises:
        UserError: its file is missing or damaged.
    """
    path = folder / f"{name}.safetensors"
    try:
        tensors = load_file(path)
        return Split(tensors["images"].permute(0, 3, 1, 2), tensors["labels"])
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); run prepare_data again") from error


def read_index(folder: Path) -> ImageIndex:
    """Return the training split of the data in ``folder``, which is an index.

    Raises:
        UserError: its file is missing or damaged.
    """
    path = folder / "train.index.json"
    content = read_json(path)
    try:
        return ImageIndex(content["root"], content["files"], content["labels"], read_info(folder).image_size[0])
    except KeyError as error:
        raise UserError(f"{path}: has no {error}; run prepare_data again") from error
