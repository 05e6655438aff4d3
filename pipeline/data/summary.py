"""What the prepared data consist of: facts for data.json, a table and warnings for the log."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.core.files import Json
from pipeline.core.text_table import aligned, counted
from pipeline.data.objects import Objects
from pipeline.data.original_sizes import OriginalSizes
from pipeline.data.reading import Image
from pipeline.data.splits import ImageSet, Indices

logger = logging.getLogger(__name__)

SPLITS = ("train", "calib", "test")
SHARED_WITH = {"test": ("train", "calib"), "calib": ("train",)}
"""From a split to those that should have none of its images."""
FEW_TO_JUDGE = 5
"""Images of a class in calib or test below which one image decides much."""
FEW = 20
"""Training images; a class with fewer is named."""
UNEVEN = 10
"""So many times the images of the smallest class in the largest one are named."""
ROWS = 20
"""Classes in the table; of more the smallest and the largest are shown."""
NAMED = 3
"""Examples in a warning."""
WIDEST = 40
"""Characters of a class name in the table."""

Digests = NDArray[np.uint64]


def pixel_digest(image: Image) -> int:
    """Return 64 bits that are the same for the same pixels, and for no others of the images of a data set."""
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=8)
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest())


@dataclass(frozen=True)
class SplitFacts:
    """A split as it was written, its images in order."""

    categories: Indices
    """The class of each, shape (N,)."""
    digests: Digests
    """Of the pixels of each, shape (N,)."""
    names: Sequence[str]
    """What each is called."""
    left_out: int
    """Images beside these N that cannot be read."""
    objects: Objects | None = None
    """What is on them; None: each image is of its class."""

    @classmethod
    def of(cls, split: ImageSet, positions: Sequence[int], digests: Digests) -> SplitFacts:
        """Return the facts of the images at ``positions`` of ``split``, the others of which cannot be read."""
        kept = split.select(np.array(positions, dtype=np.int64))
        return cls(
            kept.categories, digests, kept.names, left_out=len(split.categories) - len(positions), objects=kept.objects
        )

    def counts(self, num_categories: int) -> NDArray[np.int64]:
        """Return how many objects of each class there are, or images where these have none, shape (num_categories,)."""
        if self.objects is None:
            return np.bincount(self.categories, minlength=num_categories)
        return self.objects.counts(num_categories)


@dataclass(frozen=True)
class DataSummary:
    """The splits, and what else the log says of them."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitFacts]
    sizes: OriginalSizes | None
    """Of training images."""

    @cached_property
    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Return the number of objects of each class, or of images where these have none, by split."""
        return {name: self.splits[name].counts(len(self.class_names)) for name in SPLITS}

    @cached_property
    def objects(self) -> dict[str, Objects]:
        """Return what is on the images, by split; empty: each image is of its class."""
        found = {name: self.splits[name].objects for name in SPLITS}
        return {name: objects for name, objects in found.items() if objects is not None}

    @property
    def things(self) -> str:
        """Return what is counted."""
        return "objects" if self.objects else "images"

    def facts(self) -> Json:
        """Return what data.json holds; it depends on the images alone, so other files beside them change nothing."""
        facts = {
            "class_counts": {name: counts.tolist() for name, counts in self.counts.items()},
            "original_sizes": None if self.sizes is None else self.sizes._asdict(),
            "shared_images": {name: len(self._shared(name)) for name in SHARED_WITH},
        }
        if not self.objects:
            return facts | {"images_in_several_classes": self._in_several_classes()}
        return facts | {
            "images_without_objects": {name: _empty(objects) for name, objects in self.objects.items()},
            "ignored_objects": {name: int(objects.ignored.sum()) for name, objects in self.objects.items()},
        }

    def lines(self) -> list[str]:
        """Return the table: images, or objects, of each split and class, and the sizes of the images."""
        lines = aligned(["class", *SPLITS], self._rows())
        left_out = {name: self.splits[name].left_out for name in SPLITS if self.splits[name].left_out}
        if left_out:
            lines.append(f"left out, since they cannot be read: {counted(left_out)}")
        if self.sizes is not None:
            smallest, median, largest = (f"{width} x {height}" for width, height in self.sizes[:3])
            found = f"all {smallest}" if smallest == largest else f"{smallest} to {largest}, median {median}"
            lines.append(f"original sizes of {self.sizes.num_images:,} training images: {found}")
        return lines

    def warnings(self) -> Iterator[str]:
        """Yield what is likely to spoil the result."""
        for name in SHARED_WITH:
            found = self._shared(name)
            if len(found):
                yield self._shared_text(name, found)
        several = 0 if self.objects else self._in_several_classes()
        if several:
            yield f"train: {several:,} image(s) are in more than one class; keep each in one"
        for name in SPLITS:
            missing = np.flatnonzero(self.counts[name] == 0)
            if len(missing):
                what = "object" if self.objects else "image"
                yield f"{name}: has no {what} of {len(missing)} class(es): {self._listed(missing)}"
        yield from self._balance()

    def _balance(self) -> Iterator[str]:
        train = self.counts["train"]
        few = np.flatnonzero(train < FEW)
        if len(few):
            shown = self._listed(few[np.argsort(train[few], kind="stable")], train)
            yield f"train: {len(few)} class(es) have fewer than {FEW} {self.things}, add some if you can: {shown}"
        for name in ("calib", "test"):
            few = np.flatnonzero((self.counts[name] < FEW_TO_JUDGE) & (self.counts[name] > 0))
            if len(few):
                yield (
                    f"{name}: {len(few)} class(es) have fewer than {FEW_TO_JUDGE} {self.things} to judge by, so "
                    "figures on it are rough"
                )
        if train.max() > UNEVEN * train.min():
            yield self._uneven(train)

    def _uneven(self, train: NDArray[np.int64]) -> str:
        least = max(1, int(train.min()))
        text = f"train: the largest class has {train.max() / least:.0f} times the {self.things} of the smallest; "
        if self.objects:
            return f"{text}AP counts both alike, so add images of the rare ones if you can"
        return (
            f"{text}for classes of equal weight set class_weights to balanced in train_teacher.training and "
            "distill_student.training"
        )

    def _rows(self) -> list[list[str]]:
        counts = self.counts
        order = np.arange(len(self.class_names))
        num_hidden = max(0, len(order) - ROWS)
        if num_hidden:
            by_size = np.argsort(counts["train"], kind="stable")
            order = np.concatenate([by_size[: ROWS // 2], by_size[-ROWS // 2 :]])
        rows = [
            [self.class_names[category][:WIDEST], *(f"{counts[name][category]:,}" for name in SPLITS)]
            for category in order
        ]
        if num_hidden:
            rows.insert(ROWS // 2, [f"... {num_hidden:,} classes ...", *("" for _ in SPLITS)])
        rows.append([f"all {len(self.class_names):,}", *(f"{counts[name].sum():,}" for name in SPLITS)])
        return rows + self._image_rows()

    def _image_rows(self) -> list[list[str]]:
        """Return what the images are that have objects, and how many of the latter are not counted."""
        if not self.objects:
            return []
        rows = {
            "images": {name: len(objects) for name, objects in self.objects.items()},
            "images without objects": {name: _empty(objects) for name, objects in self.objects.items()},
            "objects to ignore": {name: int(objects.ignored.sum()) for name, objects in self.objects.items()},
        }
        return [
            [what, *(f"{found[name]:,}" for name in SPLITS)]
            for what, found in rows.items()
            if what == "images" or any(found.values())
        ]

    def _listed(self, categories: Indices, counts: NDArray[np.int64] | None = None) -> str:
        shown = [
            self.class_names[category] + ("" if counts is None else f" {counts[category]}")
            for category in categories[:NAMED]
        ]
        return ", ".join(shown) + (", ..." if len(categories) > NAMED else "")

    def _shared(self, name: str) -> Indices:
        """Return the positions in the split ``name`` of images that are in one of ``SHARED_WITH`` too."""
        others = np.concatenate([self.splits[other].digests for other in SHARED_WITH[name]])
        return np.flatnonzero(np.isin(self.splits[name].digests, others))

    def _shared_text(self, name: str, found: Indices) -> str:
        split, others = self.splits[name], SHARED_WITH[name]
        shown = [f"{split.names[i]} is {self._twin(split.digests[i], others)}" for i in found[:NAMED]]
        return (
            f"{name}: {len(found):,} of {len(split.digests):,} images are in {' or '.join(others)} too, which makes "
            f"its scores too good: {', '.join(shown)}{', ...' if len(found) > NAMED else ''}; keep each in one split"
        )

    def _twin(self, digest: np.uint64, others: Sequence[str]) -> str:
        """Return what the first image with ``digest`` in the splits ``others`` is called."""
        return next(
            self.splits[other].names[int(position)]
            for other in others
            for position in np.flatnonzero(self.splits[other].digests == digest)
        )

    def _in_several_classes(self) -> int:
        """Return how many different training images are in more than one class."""
        train = self.splits["train"]
        order = np.lexsort((train.categories, train.digests))
        digests, categories = train.digests[order], train.categories[order]
        conflicts = (digests[1:] == digests[:-1]) & (categories[1:] != categories[:-1])
        return len(np.unique(digests[1:][conflicts]))


def _empty(objects: Objects) -> int:
    """Return how many images have no object at all, whether it is ignored or not."""
    return int((np.diff(objects.offsets) == 0).sum())


def report(summary: DataSummary, passed_over: Mapping[str, int]) -> None:
    """Log the table and the warnings of ``summary``, and what was ``passed_over`` beside the images, by what it is."""
    for line in summary.lines():
        logger.info("%s", line)
    if passed_over:
        logger.info("passed over: %s", counted(passed_over))
    for warning in summary.warnings():
        logger.warning("%s", warning)
