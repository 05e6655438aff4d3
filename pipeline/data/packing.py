"""Turn a source into packed splits: uint8 pixels of one size, in safetensors files."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from pipeline.data.images import central_square
from pipeline.data.splits import ImageSet, ImageSource, hold_out, take_balanced
from pipeline.errors import UserError, blamed_on
from pipeline.files import Json, sha256, write_json

logger = logging.getLogger(__name__)


def make_splits(
    source: ImageSource,
    *,
    test_fraction: float,
    calib_fraction: float,
    max_train_images: int | None,
    max_test_images: int | None,
    seed: int,
) -> dict[str, ImageSet]:
    """Return ``train``, ``calib`` and ``test``; what the source lacks is held out of its training images.

    Raises:
        UserError: a class is too small to be split, or a subset too small to hold every class.
    """
    splits = dict(source.splits)
    if "test" not in splits:
        splits["train"], splits["test"] = hold_out(splits["train"], source.classes, fraction=test_fraction, seed=seed)
    each = 1 if "calib" in splits else 2  # training images of a class: calib takes one
    splits["test"] = _subset(splits["test"], "max_test_images", max_test_images, 1, seed)
    splits["train"] = _subset(splits["train"], "max_train_images", max_train_images, each, seed)
    if "calib" not in splits:
        splits["train"], splits["calib"] = hold_out(splits["train"], source.classes, fraction=calib_fraction, seed=seed)
    return splits


def _subset(images: ImageSet, key: str, count: int | None, each: int, seed: int) -> ImageSet:
    with blamed_on(f"prepare_data.{key}"):
        return take_balanced(images, count, at_least=each, seed=seed)


def pack(
    splits: Mapping[str, ImageSet],
    classes: tuple[str, ...],
    folder: Path,
    *,
    source: str,
    image_size: int | None,
    max_packed_gib: float,
) -> Json:
    """Write ``<split>.safetensors`` (images uint8 (N, H, W, 3), labels int64 (N,)) and ``data.json``; return that.

    Raises:
        UserError: images differ in size and ``image_size`` is None, a file is unreadable, or the pixels would not fit.
    """
    size = _common_size(splits["train"], image_size)
    total = sum(len(split.labels) for split in splits.values()) * size[0] * size[1] * 3 / 2**30
    if total > max_packed_gib:
        raise UserError(
            f"prepare_data.max_packed_gib: the images take {total:.1f} GiB packed at {size[0]} x {size[1]}, allowed "
            f"are {max_packed_gib:g}; choose a smaller image_size or subset, or raise the limit if memory allows"
        )
    about: Json = {"task": "classification", "classes": list(classes), "image_size": list(size), "source": source}
    about |= {"resize": "none" if image_size is None else "central_square", "sizes": {}, "sha256": {}}
    for name, split in splits.items():
        images = _read_all(split, name, size, resize=image_size is not None)
        path = folder / f"{name}.safetensors"
        save_file({"images": images, "labels": split.labels}, path)
        path.chmod(0o644)  # safetensors leaves it to the owner alone
        about["sizes"][name] = len(split.labels)
        about["sha256"][path.name] = sha256(path)
        if name == "train":
            about["mean"], about["std"] = channel_statistics(images)
    write_json(folder / "data.json", about)
    return about


def channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of (N, H, W, 3), for pixels scaled to [0, 1].

    A channel without variation gets standard deviation 1, so that normalising it is defined.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), 256):  # a few at a time, since counting widens the pixels to 64 bits
        chunk = images[start : start + 256]
        counts += np.stack([np.bincount(chunk[..., channel].ravel(), minlength=256) for channel in range(3)])
    weights = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(axis=1)
    return _rounded(mean), _rounded(np.where(variance > 0, np.sqrt(variance), 1.0))


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 6) for value in values]


def _common_size(train: ImageSet, image_size: int | None) -> tuple[int, int]:
    if image_size is not None:
        return image_size, image_size
    _, first = next(train.read(np.zeros(1, dtype=np.int64)))
    return first.shape[0], first.shape[1]


def _read_all(split: ImageSet, name: str, size: tuple[int, int], *, resize: bool) -> NDArray[np.uint8]:
    packed = np.empty((len(split.labels), *size, 3), dtype=np.uint8)
    images = split.read(np.arange(len(split.labels)))
    for position, (label, image) in enumerate(tqdm(images, desc=f"packing {name}", total=len(packed), disable=None)):
        fitted = central_square(image, size[0]) if resize else image
        if fitted.shape[:2] != size:
            raise UserError(
                f"{label}: is {image.shape[1]} x {image.shape[0]} pixels, the first training image is "
                f"{size[1]} x {size[0]}; set prepare_data.image_size to bring all images to one size"
            )
        packed[position] = fitted
    logger.info("packed %s: %d images of %d x %d", name, len(packed), *size)
    return packed
