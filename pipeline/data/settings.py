"""Settings of the data: where images come from, how they are split and kept, and how training varies them."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from pipeline.core.settings import (
    BelowOne,
    Count,
    Fraction,
    NonNegative,
    PathText,
    Positive,
    Section,
    Share,
    entry_of,
    knob,
    rare,
)
from pipeline.data.sources.archive import ARCHIVE_SUFFIXES
from pipeline.data.sources.table import SOURCES


class PrepareData(Section):
    """Where the images come from and how they are split."""

    source: Annotated[str, entry_of(SOURCES)] = knob("digits", "where the images come from")
    root: PathText | None = knob(None, "directory or archive of the images; null where the source brings them along")
    download: bool = knob(
        default=False, description="let torchvision download the data set into root; for those that it knows"
    )
    image_size: Annotated[int, Field(ge=4)] | None = knob(
        None, "N: shorter side to N pixels, then the central N x N; null: keep, all must agree"
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
    unreadable: Literal["stop", "skip"] = rare("stop", "at a damaged image: stop, or skip it and count")

    @model_validator(mode="after")
    def _root_fits_source(self) -> Self:
        needs_root = SOURCES[self.source].needs_root
        if not needs_root and self.root is not None:
            raise ValueError(f"source {self.source} comes with the pipeline: root must be null")
        if needs_root and self.root is None:
            raise ValueError(f"source {self.source} needs root: the path of its directory or archive")
        return self

    @model_validator(mode="after")
    def _index_has_files(self) -> Self:
        if self.storage == "packed":
            return self
        if not SOURCES[self.source].has_files or str(self.root).endswith(ARCHIVE_SUFFIXES):
            able = " or ".join(name for name, entry in SOURCES.items() if entry.has_files)
            raise ValueError(f"storage index needs files: source {able} with a directory as root; or set packed")
        if self.image_size is None:
            raise ValueError("storage index needs image_size, to which its images are brought when they are decoded")
        return self


class Augment(Section):
    """Random changes of the training images."""

    crop_padding: Annotated[int, Field(ge=0)] = knob(
        1, "zero pixels around an image, from which a window of its size is cut at random"
    )
    horizontal_flip: bool = knob(default=False, description="mirror each image with probability one half")
    resized_crop_scale: Annotated[tuple[Share, Share], Strict(strict=False)] | None = knob(
        None, "share of an image that is cut and resized, e.g. [0.08, 1.0]; needs storage index"
    )
    color_jitter: BelowOne = rare(0.0, "brightness, contrast and saturation change by up to this share, e.g. 0.4")
    mixup_alpha: NonNegative = rare(0.0, "above 0: images are mixed with others of the batch, e.g. 0.2")
    cutmix_alpha: NonNegative = rare(0.0, "above 0: pieces of other images of the batch are pasted in, e.g. 1.0")

    @model_validator(mode="after")
    def _scale_ascends(self) -> Self:
        if self.resized_crop_scale is not None and self.resized_crop_scale[0] > self.resized_crop_scale[1]:
            raise ValueError(
                f"resized_crop_scale: got {list(self.resized_crop_scale)}; give the smaller share of the image first"
            )
        return self
