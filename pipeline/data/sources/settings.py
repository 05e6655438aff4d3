"""Settings of the stage ``prepare_data``: where images come from, how they are split and kept."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Strict, model_validator

from pipeline.core.settings import Count, Fraction, PathText, Positive, Section, entry_of, knob, rare
from pipeline.data.decoding import MAX_MEGAPIXELS
from pipeline.data.sources.archive import is_archive
from pipeline.data.sources.table import SOURCES

SMALLEST = 4
"""Pixels of a side of an image."""
SIZES = f"one number of pixels from {SMALLEST} on, e.g. 128; for images with objects also [height, width]; or null"

Sides = Annotated[tuple[int, int], Strict(strict=False)]


def _large_enough(size: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    if size is not None and min(size if isinstance(size, tuple) else (size,)) < SMALLEST:
        raise ValueError(f"got {list(size) if isinstance(size, tuple) else size}; give {SIZES}")
    return size


def _below_root(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"got {path!r}; give a path as seen from prepare_data.root, below it")
    return path


PathBelowRoot = Annotated[PathText, AfterValidator(_below_root)]


class AnnotationFiles(Section):
    """Files of annotations that the user names."""

    train: PathBelowRoot | None = rare(None, "file of the training images, as seen from root; null: found by its name")
    calib: PathBelowRoot | None = rare(None, "file of the images to calibrate on; null: held out of train")
    test: PathBelowRoot | None = rare(None, "file of the images to test on; null: held out of train")

    @model_validator(mode="after")
    def _train_is_named(self) -> Self:
        if self.named() and self.train is None:
            raise ValueError("names no file for train; give one, or leave all null for them to be found by their names")
        return self

    def named(self) -> dict[str, str]:
        """Return the files by their splits."""
        return {split: path for split, path in self if path is not None}


class PrepareData(Section):
    """Where the images come from and how they are split."""

    source: Annotated[str, entry_of(SOURCES)] = knob("digits", "where the images come from")
    root: PathText | None = knob(None, "directory or archive of the images; null where the source brings them along")
    download: bool = knob(
        default=False, description="let torchvision download the data set into root; for those that it knows"
    )
    image_size: Annotated[int | Sides | None, AfterValidator(_large_enough)] = knob(
        None,
        "N: shorter side to N pixels, then the central N x N; null: keep, all must agree; of boxes N or [height, "
        "width]: whole image, padded",
        takes=SIZES,
    )
    max_train_images: Count | None = knob(
        None, "train on a class-balanced subset of so many images, e.g. for a trial; null: all"
    )
    storage: Literal["packed", "index"] = knob(
        "packed", "packed: all pixels in memory; index: decoded while training, for large images"
    )
    max_test_images: Count | None = rare(None, "test on a class-balanced subset of so many; null: all")
    test_fraction: Fraction = rare(0.2, "share of each class to test on, where the source has no test split")
    calib_fraction: Fraction = rare(0.15, "share of each training class that is held out to calibrate on")
    max_packed_gib: Positive = rare(8.0, "refuse more pixels than this, in GiB; they live in memory")
    max_megapixels: Positive = rare(
        MAX_MEGAPIXELS, "refuse images of more pixels, in millions; a large JPEG counts as reduced"
    )
    unreadable: Literal["stop", "skip"] = rare("stop", "at a damaged image: stop, or skip it and count")
    annotations: AnnotationFiles = rare(
        AnnotationFiles(), "the JSON file of each split, where names like instances_train do not tell"
    )

    @model_validator(mode="after")
    def _root_fits_source(self) -> Self:
        needs_root = SOURCES[self.source].needs_root
        if not needs_root and self.root is not None:
            raise ValueError(f"source {self.source} comes with the pipeline: root must be null")
        if needs_root and self.root is None:
            raise ValueError(f"source {self.source} needs root: the path of its directory or archive")
        return self

    @property
    def known_size(self) -> tuple[int, int] | None:
        """Height and width of the images, as far as they are known before any is read."""
        size = self.image_size or SOURCES[self.source].image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width, where each has a number of its own."""
        return self.image_size if isinstance(self.image_size, tuple) else None

    @model_validator(mode="after")
    def _source_has_annotations(self) -> Self:
        if self.annotations.named() and not SOURCES[self.source].takes_annotations:
            able = " or ".join(name for name, entry in SOURCES.items() if entry.takes_annotations)
            raise ValueError(f"annotations: source {self.source} has no such files; leave them null, or use {able}")
        return self

    @model_validator(mode="after")
    def _index_has_files(self) -> Self:
        if self.storage == "packed":
            return self
        if not SOURCES[self.source].has_files or is_archive(str(self.root)):
            able = " or ".join(name for name, entry in SOURCES.items() if entry.has_files)
            raise ValueError(f"storage index needs files: source {able} with a directory as root; or set packed")
        if self.image_size is None:
            raise ValueError("storage index needs image_size, to which its images are brought when they are decoded")
        return self
