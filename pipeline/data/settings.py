"""Settings of the random changes that training makes to images."""

from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from pipeline.core.settings import BelowOne, NonNegative, Positive, Section, Share, knob, rare


class Augment(Section):
    """Random changes of the training images."""

    crop_padding: Annotated[int, Field(ge=0)] = knob(
        1, "zero pixels around an image, from which a window of its size is cut at random"
    )
    horizontal_flip: bool = knob(default=False, description="mirror each image with probability one half")
    resized_crop_scale: Annotated[tuple[Share, Share], Strict(strict=False)] | None = knob(
        None,
        "share of an image that is cut and resized, e.g. [0.08, 1.0]; of files before they are scaled down",
    )
    scale_jitter: Annotated[tuple[Positive, Positive], Strict(strict=False)] | None = rare(
        None,
        "of images with objects, storage index: factor by which one is larger or smaller than fits, e.g. [0.5, 2.0]",
    )
    trivial_augment: bool = knob(
        default=False,
        description="one of 14 strong changes of colour or shape for each image",
    )
    color_jitter: BelowOne = rare(0.0, "brightness, contrast and saturation change by up to this share, e.g. 0.4")
    random_erasing: Annotated[float, Field(ge=0, le=1)] = rare(
        0.0, "probability of an image to have a part painted over with the mean colour, e.g. 0.1"
    )
    mixup_alpha: NonNegative = rare(0.0, "above 0: images are mixed with others of the batch, e.g. 0.2")
    cutmix_alpha: NonNegative = rare(0.0, "above 0: pieces of other images of the batch are pasted in, e.g. 1.0")

    @model_validator(mode="after")
    def _colours_change_once(self) -> Self:
        if self.trivial_augment and self.color_jitter:
            raise ValueError(
                f"color_jitter: got {self.color_jitter:g}, and trivial_augment changes colours already; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _scale_ascends(self) -> Self:
        if self.resized_crop_scale is not None and self.resized_crop_scale[0] > self.resized_crop_scale[1]:
            raise ValueError(
                f"resized_crop_scale: got {list(self.resized_crop_scale)}; give the smaller share of the image first"
            )
        return self

    @model_validator(mode="after")
    def _jitter_ascends_and_is_alone(self) -> Self:
        if self.scale_jitter is None:
            return self
        shown = list(self.scale_jitter)
        if self.scale_jitter[0] > self.scale_jitter[1]:
            raise ValueError(f"scale_jitter: got {shown}; give the smaller factor first")
        if self.resized_crop_scale is not None:
            raise ValueError(f"scale_jitter: got {shown}, and resized_crop_scale scales images already; leave one out")
        return self
