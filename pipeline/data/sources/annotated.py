"""Images with objects, as files of annotations name them, brought into one table; what is odd is counted and logged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.data.objects import Objects
from pipeline.data.reading import Fit, Image, read_images
from pipeline.data.sources.frames import Boxes, Frame, Size, read_frame, turned_boxes
from pipeline.data.sources.image_tree import ImageTree, suffix_of
from pipeline.data.sources.shown_names import ShownNames
from pipeline.data.splits import ImageSet, ImageSource, Indices

logger = logging.getLogger(__name__)

NAMED = 3
"""Examples in a remark."""
UNKNOWN_SIZE = (1, 1)
"""Of an image that cannot be read and whose size nothing says."""


class Box(NamedTuple):
    """An object as a file of annotations has it."""

    corners: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels, or as parts of the image's width and height."""
    category: int
    """Its class, an index into the class names."""
    ignored: bool = False
    """Whether it is neither learned nor missed."""
    area: float | None = None
    """Its pixels; None: those of its box."""
    where: str = ""
    """Where it stands, below its image: "annotation 7", "line 2"."""


@dataclass
class Annotated:
    """An image, and what is said to be on it."""

    file: Path
    where: str
    """What messages call the place that says so: a file, and where there."""
    size: Size | None = None
    """Height and width as that place has them."""
    boxes: list[Box] = field(default_factory=list)


class Remarks:
    """What is odd in the annotations of a split and was put right: how often, and where first."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        """Count ``what``, which stands at ``where``."""
        self.counts[what] += count
        first = self._first.setdefault(what, [])
        if len(first) < NAMED:
            first.append(where)

    def log(self, split: str) -> None:
        """Write them to the log."""
        for what, count in self.counts.items():
            first = self._first[what]
            logger.warning("%s: %d %s: %s%s", split, count, what, "; ".join(first), "; ..." * (count > len(first)))


NO_EXTENT = "box(es) without width or height are left out"
OUTSIDE = "box(es) outside of their image are left out"
CUT = "box(es) reach over the edge of their image and are cut there"
TURNED = "image(s) are annotated as stored, not as a camera's note turns them: their boxes are turned along"
UNSURE = (
    "image(s) have a camera's note that turns or mirrors them, which their size does not show: their boxes are taken "
    "to be those of the turned image"
)
NO_SIZE = "image(s) without width and height in the annotations: taken from the image file"


def image_set(images: Sequence[Annotated], names: ShownNames, remarks: Remarks, *, are_parts: bool = False) -> ImageSet:
    """Return the set of ``images`` and their objects; ``categories`` are not set yet, see ``detection_source``.

    The head of each image file is read: boxes are clipped to the image as it is shown, to which they are turned where
    the annotations are of the stored pixels.

    Args:
        are_parts: whether the corners of boxes are parts of the image's width and height.

    Raises:
        UserError: an image has another size than its annotations say, or is there twice.
    """
    files = [image.file for image in images]
    _check_once(images, names)
    placed = [_placed(image, names(image.file), remarks, are_parts=are_parts) for image in images]

    def read(positions: Indices, fit: Fit) -> Iterator[Image | UserError]:
        chosen = [files[position] for position in positions]
        return read_images([names(file) for file in chosen], chosen, fit)

    categories = np.zeros(len(files), dtype=np.int64)
    return ImageSet(categories, [names.below(file) for file in files], read, files, _table(placed))


def _check_once(images: Sequence[Annotated], names: ShownNames) -> None:
    seen: dict[Path, str] = {}
    for image in images:
        if image.file in seen:
            raise UserError(
                f"{image.where}: is of {names(image.file)}, and so is {seen[image.file]}; merge them: what one of them "
                "lacks would count as not there"
            )
        seen[image.file] = image.where


class _Placed(NamedTuple):
    """The objects of one image, as it is shown."""

    size: Size
    boxes: Boxes
    kept: list[Box]
    """That the rows of ``boxes`` are of."""


def _table(placed: Sequence[_Placed]) -> Objects:
    kept = [box for image in placed for box in image.kept]
    boxes = np.concatenate([np.empty((0, 4)), *(image.boxes for image in placed)])
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    given = np.array([np.nan if box.area is None else box.area for box in kept], dtype=np.float64)
    return Objects(
        boxes,
        np.array([box.category for box in kept], dtype=np.int64),
        np.array([box.ignored for box in kept], dtype=np.bool_),
        np.where(given > 0, given, own),
        np.cumsum([0, *(len(image.kept) for image in placed)], dtype=np.int64),
        np.array([image.size for image in placed], dtype=np.int64).reshape(-1, 2),
    )


def _placed(image: Annotated, name: str, remarks: Remarks, *, are_parts: bool) -> _Placed:
    frame = read_frame(image.file, name)
    boxes = np.array([box.corners for box in image.boxes], dtype=np.float64).reshape(-1, 4)
    if frame is None:  # reading it will say so
        size = image.size or UNKNOWN_SIZE
    else:
        size = frame.shown
        if _is_of_stored(image, frame, name, remarks):
            boxes = turned_boxes(boxes, frame)
    height, width = size
    if are_parts:
        boxes = boxes * (width, height, width, height)
    kept, boxes = _clipped(image, boxes, size, remarks)
    return _Placed(size, boxes, kept)


def _is_of_stored(image: Annotated, frame: Frame, name: str, remarks: Remarks) -> bool:
    """Return whether the annotations of ``image`` are of the pixels as they are stored, before they are turned.

    Raises:
        UserError: they are of an image of another size.
    """
    if image.size is not None and image.size not in (frame.shown, frame.stored):
        height, width = image.size
        shown = f"{frame.shown[1]} x {frame.shown[0]}"
        raise UserError(
            f"{image.where}: says that {name} is {width} x {height} pixels, it is {shown}; annotate the image that is "
            "there, or give the one that was annotated"
        )
    if image.size is None:
        return False
    if frame.is_sideways and frame.shown != frame.stored and image.size == frame.stored:
        remarks.add(TURNED, name)
        return True
    if frame.turned > 1 and frame.shown == frame.stored:
        remarks.add(UNSURE, name)
    return False


def _clipped(image: Annotated, boxes: Boxes, size: Size, remarks: Remarks) -> tuple[list[Box], Boxes]:
    """Return the objects that are on the image of ``size``, and their boxes cut at its edges."""
    if not len(boxes):
        return [], boxes
    height, width = size
    inside = np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))
    has_extent, is_seen = _has_extent(boxes), _has_extent(inside)
    is_cut = np.asarray((np.abs(inside - boxes) > ROUNDING * max(size)).any(axis=1))
    for position, box in enumerate(image.boxes):
        if is_seen[position] and not is_cut[position]:
            continue
        where = f"{image.where}, {box.where}"
        remarks.add(NO_EXTENT if not has_extent[position] else CUT if is_seen[position] else OUTSIDE, where)
    return [image.boxes[position] for position in np.flatnonzero(is_seen)], inside[is_seen]


def _has_extent(boxes: Boxes) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


ROUNDING = 1e-4
"""Part of an image's longer side by which a box may reach over the edge without being counted."""


NOT_NAMED = "image(s) that no annotations name"


def passed_over(tree: ImageTree, splits: Mapping[str, ImageSet], read: Sequence[Path]) -> Counter[str]:
    """Return what lies in ``tree`` beside the images of ``splits`` and the annotations that were ``read``, by kind."""
    total = tree.all_passed_over()
    total.subtract(Counter(suffix_of(file.name) for file in read))
    named = {file for images in splits.values() for file in images.files}
    total[NOT_NAMED] = tree.count - len(named)
    return +total


def detection_source(
    splits: Mapping[str, ImageSet],
    class_names: tuple[str, ...],
    category_ids: tuple[int, ...] | None,
    passed_over: Mapping[str, int],
) -> ImageSource:
    """Return the source of ``splits``, whose images get the class by which they are drawn: the rarest of training.

    Raises:
        UserError: a split has no object.
    """
    found = {name: _counts(images, len(class_names)) for name, images in splits.items()}
    for name, counts in found.items():
        if not counts.any():
            raise UserError(
                f"{name}: none of its {len(splits[name].names)} image(s) has an object to find; check that the "
                "annotations are those of these images"
            )
    counts = found["train"]
    return ImageSource(
        class_names,
        {name: _with_strata(images, len(class_names), counts) for name, images in splits.items()},
        passed_over,
        category_ids,
    )


def _counts(images: ImageSet, num_categories: int) -> Indices:
    assert images.objects is not None
    return images.objects.counts(num_categories)


def _with_strata(images: ImageSet, num_categories: int, counts: Indices) -> ImageSet:
    assert images.objects is not None
    strata = images.objects.strata(num_categories, counts)
    return ImageSet(strata, images.names, images.read, images.files, images.objects)
