"""Labelled images before they are packed, and seeded class-balanced splits of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """Images that are read on demand."""

    labels: Indices
    """Class index of each image, shape (N,)."""
    read: Callable[[Indices], Iterator[tuple[str, NDArray[np.uint8]]]]
    """Yield (name for messages, RGB image (H, W, 3)) of each given position, in that order."""

    def select(self, positions: Indices) -> "ImageSet":
        """Return the set of the images at ``positions``."""
        return ImageSet(self.labels[positions], lambda chosen: self.read(positions[chosen]))


@dataclass(frozen=True)
class ImageSource:
    """What a data source holds."""

    classes: tuple[str, ...]
    splits: Mapping[str, ImageSet]
    """``train`` always; ``test`` and ``calib`` where the source brings its own."""


def class_ranks(labels: Indices, *, seed: int) -> Indices:
    """Return each image's place, from 0, in a seeded shuffle of its class."""
    generator = np.random.default_rng(seed)
    ranks = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = generator.permutation(len(members))
    return ranks


def hold_out(images: ImageSet, classes: tuple[str, ...], *, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Return (kept, held out): ``fraction`` of each class, at least one image, is held out.

    Raises:
        UserError: a class has a single image, so nothing would be left of it.
    """
    sizes = np.bincount(images.labels, minlength=len(classes))
    if (sizes < 2).any():
        name = classes[int(np.argmin(sizes))]
        raise UserError(
            f"class {name!r} has {sizes.min()} image(s) to split; every class needs at least 3 "
            "(one each to train, calibrate and test): add images, or remove the class"
        )
    quota = np.maximum(1, np.round(sizes * fraction)).astype(np.int64)
    quota = np.minimum(quota, sizes - 1)
    held = class_ranks(images.labels, seed=seed) < quota[images.labels]
    return images.select(np.flatnonzero(~held)), images.select(np.flatnonzero(held))


def take_balanced(images: ImageSet, count: int | None, *, at_least: int, seed: int) -> ImageSet:
    """Return ``count`` images spread evenly over the classes (None, or at least as many as there are: all of them).

    Raises:
        ValueError: ``count`` leaves a class with fewer than ``at_least`` images.
    """
    if count is None or count >= len(images.labels):
        return images
    num_classes = len(np.unique(images.labels))
    needed = at_least * num_classes
    if count < needed:
        raise ValueError(f"got {count}, but {num_classes} classes need {needed} images, {at_least} of each, or more")
    ranks = class_ranks(images.labels, seed=seed)
    return images.select(np.sort(np.lexsort((images.labels, ranks))[:count]))
