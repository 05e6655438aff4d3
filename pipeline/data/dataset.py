"""What ``prepare_data`` wrote, read back as tensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline.core.arrays import Pixels
from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.core.records import DataRecord, read_record
from pipeline.data.batch import ReadTargets, Targets
from pipeline.data.decoding import Resize
from pipeline.data.file_list import FileList
from pipeline.data.reading import Fit


@dataclass(frozen=True)
class Split:
    """Images and what is to be predicted of them."""

    images: Tensor
    """uint8, (N, 3, H, W), channels last in memory."""
    targets: Targets

    def __len__(self) -> int:
        return len(self.images)

    def select(self, positions: Tensor | slice) -> "Split":
        """Return the images at ``positions`` with their targets."""
        return Split(self.images[positions], self.targets.select(positions))

    def spread(self, count: int) -> "Split":
        """Return at most ``count`` of the images, evenly spread over the split, whose order is that of the classes."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self)), dtype=torch.float64).round().long()
        return self.select(chosen)

    @property
    def pixels(self) -> Pixels:
        """Return the images as an array (N, 3, H, W) over the same memory."""
        return np.asarray(self.images)


@dataclass(frozen=True)
class ImageIndex:
    """Image files of any size, decoded when they are needed."""

    files: FileList
    targets: Targets
    fit: Fit
    """What images are brought to."""


@dataclass(frozen=True)
class DataInfo:
    """What data.json says of the images."""

    task: str
    """A name of ``pipeline.tasks.table.TASKS``."""
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["none", "central_square", "letterbox"]
    """``central_square``: the shorter side to the image size, then the centre cut out; ``letterbox``: all of it."""
    storage: str
    """How the training split is stored: ``packed`` or ``index``."""
    class_counts: tuple[int, ...] = ()
    """Training images of each class; objects, where images have such."""
    category_ids: tuple[int, ...] | None = None
    """What the user's files call the classes; None: by their names alone."""
    padding: int | None = None
    """Value of the pixels beside a letterboxed image; None: there are none."""


def read_info(folder: Path) -> DataInfo:
    """Return what ``folder``/data.json says.

    Raises:
        UserError: it is missing or not as ``prepare_data`` writes it.
    """
    about = read_record(folder / "data.json", DataRecord)
    height, width = about["image_size"]
    return DataInfo(
        task=about["task"],
        class_names=tuple(about["classes"]),
        image_size=(height, width),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        resize=about["resize"],
        storage=about["storage"],
        class_counts=tuple(about["class_counts"]["train"]),
        category_ids=None if about.get("category_ids") is None else tuple(about["category_ids"]),
        padding=about.get("padding"),
    )


def read_split(folder: Path, name: str, read_targets: ReadTargets) -> Split:
    """Return the split ``name`` (train, calib or test) of the packed data in ``folder``.

    Raises:
        UserError: its file is missing or damaged.
    """
    path = folder / f"{name}.safetensors"
    try:
        tensors = load_file(path)
        return Split(tensors["images"].permute(0, 3, 1, 2), read_targets(tensors))
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); run prepare_data again") from error


def read_names(folder: Path, split: str) -> list[str]:
    """Return what the images of the packed ``split`` are called: their files below the source's root, or their places.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / f"{split}.names.json"
    try:
        names: list[str] = read_json(path)["names"]
    except KeyError as error:
        raise UserError(f"{path}: has no {error}; run prepare_data again") from error
    return names


def read_index(folder: Path, read_targets: ReadTargets) -> ImageIndex:
    """Return the training split of the data in ``folder``, which is an index.

    Raises:
        UserError: its file is missing or damaged.
    """
    path = folder / "train.index.safetensors"
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
        files, truth = FileList.split(about["root"], load_file(path))
        info = read_info(folder)
        how: Resize = "letterbox" if info.resize == "letterbox" else "central_square"
        return ImageIndex(files, read_targets(truth), Fit(info.image_size, about["max_megapixels"], how))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); run prepare_data again") from error
