"""Images of known categories before they are packed, and seeded balanced splits of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError, user_error
from pipeline.data.objects import Objects
from pipeline.data.reading import Fit, Image, fitted

if TYPE_CHECKING:
    from pipeline.data.sources.settings import PrepareData

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]
NAMED = 5
"""Classes that a warning names."""


@dataclass(frozen=True)
class ImageSet:
    """Images that are read on demand."""

    categories: Indices
    """The category of each image, an index into the source's class names, shape (N,); splits are balanced by it.

    Where images have objects it is the class of the rarest one, and the number of classes for an image without any.
    """
    names: Sequence[str]
    """What each image is called: its file below the source's root, or its place in the source."""
    read: Callable[[Indices, Fit], Iterator[Image | UserError]]
    """Yield the RGB image (H, W, 3), or why it cannot be read, of each given position, in that order.

    The second argument says what images are brought to.
    """
    files: Sequence[Path] = ()
    """The file of each image; none where images have no files of their own."""
    objects: Objects | None = None
    """What is where on the images; None: each image as a whole is of its category."""

    def select(self, positions: Indices) -> ImageSet:
        """Return the set of the images at ``positions``."""
        names = [self.names[position] for position in positions]
        files = [self.files[position] for position in positions] if self.files else ()

        def read(chosen: Indices, fit: Fit) -> Iterator[Image | UserError]:
            return self.read(positions[chosen], fit)

        objects = None if self.objects is None else self.objects.select(positions)
        return ImageSet(self.categories[positions], names, read, files, objects)


def images_in_memory(categories: Indices, name: str, image: Callable[[int], Image]) -> ImageSet:
    """Return a set whose images (H, W, 3) ``image`` returns by position; they are called ``name`` and their number."""

    def read(positions: Indices, fit: Fit) -> Iterator[Image | UserError]:
        for position in positions:
            yield fitted(image(int(position)), fit)

    return ImageSet(categories, [f"{name} {position}" for position in range(len(categories))], read)


@dataclass(frozen=True)
class ImageSource:
    """What a data source holds."""

    class_names: tuple[str, ...]
    splits: Mapping[str, ImageSet]
    """``train`` always; ``test`` and ``calib`` where the source brings its own."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """From a suffix or a reason to how many files, folders or links beside the images are left alone."""
    category_ids: tuple[int, ...] | None = None
    """What the user's files call the classes, in the order of ``class_names``; None: by their names alone."""


def category_ranks(categories: Indices, *, seed: int) -> Indices:
    """Return each image's place, from 0, in a seeded shuffle of its category."""
    generator = np.random.default_rng(seed)
    ranks = np.empty(len(categories), dtype=np.int64)
    for category in np.unique(categories):
        members = np.flatnonzero(categories == category)
        ranks[members] = generator.permutation(len(members))
    return ranks


def hold_out(
    images: ImageSet, class_names: tuple[str, ...], *, fraction: float, seed: int
) -> tuple[ImageSet, ImageSet]:
    """Return (kept, held out): ``fraction`` of each class, at least one image, is held out.

    Where images have objects, a class that is the rarest one of a single image stays there, and is named in the log.

    Raises:
        UserError: a class has a single image, so nothing would be left of it; or nothing can be held out.
    """
    sizes = np.bincount(images.categories, minlength=len(class_names))
    if (sizes < 2).any():
        _check_sizes(images, sizes, class_names)
    quota = np.maximum(1, np.round(sizes * fraction)).astype(np.int64)
    quota = np.minimum(quota, sizes - 1)
    held = category_ranks(images.categories, seed=seed) < quota[images.categories]
    return images.select(np.flatnonzero(~held)), images.select(np.flatnonzero(held))


def _check_sizes(images: ImageSet, sizes: Indices, class_names: tuple[str, ...]) -> None:
    """Name the classes of which there are too few images to divide; raise UserError where that is a fault."""
    if images.objects is None:
        name = class_names[int(np.argmin(sizes))]
        raise UserError(
            f"class {name!r} has {sizes.min()} image(s) left to divide; every class needs at least one each to train, "
            "calibrate and test: add images, remove the class, or lower test_fraction where it is large"
        )
    if (sizes < 2).all():
        raise UserError(
            f"{len(images.categories)} image(s) are left to divide into splits, and no two of them have the same "
            "rarest class; add images, or bring a test split"
        )
    single = [class_names[position] for position in np.flatnonzero(sizes[: len(class_names)] == 1)]
    if single:
        shown = ", ".join(single[:NAMED]) + (", ..." if len(single) > NAMED else "")
        logger.warning(
            "%d class(es) are the rarest one of a single image, which is trained on and not held out: %s",
            len(single),
            shown,
        )


def take_balanced(images: ImageSet, count: int | None, *, at_least: int, seed: int) -> ImageSet:
    """Return ``count`` images spread evenly over the classes (None, or at least as many as there are: all of them).

    Raises:
        ValueError: ``count`` leaves a class with fewer than ``at_least`` images; that is no fault where images have
            objects, since most classes are on images of rarer ones too.
    """
    if count is None or count >= len(images.categories):
        return images
    found = len(np.unique(images.categories))
    needed = at_least * found
    if count < needed and images.objects is None:
        raise ValueError(
            f"got {count}, but {found} classes need {needed} images, {at_least} of each; give so many or more, or null "
            "for all"
        )
    ranks = category_ranks(images.categories, seed=seed)
    return images.select(np.sort(np.lexsort((images.categories, ranks))[:count]))


def make_splits(source: ImageSource, settings: PrepareData, *, seed: int) -> dict[str, ImageSet]:
    """Return ``train``, ``calib`` and ``test``; what the source lacks is held out of its training images.

    Raises:
        UserError: a class is too small to be split, or a subset too small to hold every class.
    """
    splits, names = dict(source.splits), source.class_names
    if "test" not in splits:
        fraction = settings.test_fraction
        splits["train"], splits["test"] = hold_out(splits["train"], names, fraction=fraction, seed=seed)
    each = 1 if "calib" in splits else 2  # training images of a class: calib takes one
    splits["test"] = _subset(splits["test"], "max_test_images", settings.max_test_images, 1, seed)
    splits["train"] = _subset(splits["train"], "max_train_images", settings.max_train_images, each, seed)
    if "calib" not in splits:
        fraction = settings.calib_fraction
        splits["train"], splits["calib"] = hold_out(splits["train"], names, fraction=fraction, seed=seed)
    return splits


def _subset(images: ImageSet, key: str, count: int | None, each: int, seed: int) -> ImageSet:
    with user_error(f"prepare_data.{key}"):
        return take_balanced(images, count, at_least=each, seed=seed)
