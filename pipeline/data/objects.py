"""The objects on the images of a set, in one table, whatever file they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Objects:
    """The M objects on N images, in pixels of the images as they are shown, before they are brought to another size."""

    boxes: NDArray[np.float64]
    """x1, y1, x2, y2 of each, within its image and of some extent, shape (M, 4)."""
    categories: Integers
    """The class of each, an index into the source's class names, shape (M,)."""
    ignored: NDArray[np.bool_]
    """Whether it is neither learned nor missed: a crowd of COCO, a difficult object of Pascal VOC; shape (M,)."""
    areas: NDArray[np.float64]
    """Pixels of each, by which small and large ones are told apart, shape (M,)."""
    offsets: Integers
    """The objects of image i are the rows from offsets[i] to offsets[i + 1], shape (N + 1,)."""
    sizes: Integers
    """Height and width of each image, shape (N, 2)."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.sizes)

    @property
    def images(self) -> Integers:
        """Return the image of each object, by its position, shape (M,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def select(self, positions: Sequence[int] | Integers) -> Objects:
        """Return the objects of the images at ``positions``, in their order."""
        chosen = np.asarray(positions, dtype=np.int64)
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths)
        return Objects(
            self.boxes[rows], self.categories[rows], self.ignored[rows], self.areas[rows], offsets, self.sizes[chosen]
        )

    def counts(self, num_categories: int) -> Integers:
        """Return how many objects of each class there are that are not ignored, shape (num_categories,)."""
        return np.bincount(self.categories[~self.ignored], minlength=num_categories)

    def strata(self, num_categories: int, counts: Integers) -> Integers:
        """Return by what each image is drawn into splits, shape (N,): the rarest class on it.

        It is ``num_categories`` for an image without objects that are not ignored.

        Args:
            counts: how many objects each class has, shape (num_categories,); of equal counts the first is taken.
        """
        by_count = np.argsort(counts, kind="stable")  # the rarest first
        places = np.empty(num_categories + 1, dtype=np.int64)
        places[by_count] = np.arange(num_categories)
        found = np.full(len(self), num_categories, dtype=np.int64)
        kept = ~self.ignored
        np.minimum.at(found, self.images[kept], places[self.categories[kept]])
        return np.append(by_count, num_categories)[found]
