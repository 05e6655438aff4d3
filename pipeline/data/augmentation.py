"""Random changes of a batch of images, computed on the device for all of them at once."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.data.packed_crops import crop_boxes, resized_crops
from pipeline.data.trivial_augment import BINS, GREY, OPERATIONS, trivial_augment

ERASED_SHARE = (0.02, 0.33)
"""Smallest and largest share of an image that is erased (Zhong et al. 2017)."""
ERASED_RATIO = 3.3
"""Largest height to width, or width to height, of that."""


class Geometry(NamedTuple):
    """Where the pixels of N images go: x to x * ``scale_x`` + ``shift_x``, y likewise, counted in edges of pixels."""

    scale_x: Tensor
    """Shape (N,), below 0 where an image is mirrored."""
    shift_x: Tensor
    scale_y: Tensor
    shift_y: Tensor
    size: tuple[int, int]
    """Height and width of the images afterwards."""


class Draws(NamedTuple):
    """The random numbers of some images; a row each, on the device."""

    offsets: Tensor
    """Row and column at which the crop starts, int64 (N, 2)."""
    mirrored: Tensor
    """Whether the image is mirrored, bool (N,)."""
    jitter: Tensor
    """Factors of brightness, contrast and saturation, float32 (N, 3)."""
    operations: Tensor
    """Number of the operation of TrivialAugment, int64 (N,), on the CPU."""
    strengths: Tensor
    """Strength of that, float32 (N,), -1 to 1."""
    erasing: Tensor
    """Whether a part is erased (below the probability), its share, its shape, its row and column, float32 (N, 5)."""
    boxes: Tensor
    """The part that is cut and resized, as shares of the sides, float32 (N, 4); see ``packed_crops``."""

    def rows(self, positions: slice) -> "Draws":
        """Return the draws of the images at ``positions``."""
        return Draws(*(values[positions] for values in self))


class Augmentation:
    """Shifted crops, mirroring, changes of colour and shape, erased parts.

    Args:
        crop_padding: zero pixels added around an image before a crop of its size is taken at a random place.
        horizontal_flip: mirror each image with probability one half.
        color_jitter: brightness, contrast and saturation are each multiplied by a factor drawn from 1 -/+ this.
        trivial_augment: change each image by one operation of TrivialAugment.
        random_erasing: probability of an image to have a part erased.
        erased: red, green and blue of that part, 0 to 1.
        crop_scale: smallest and largest share of an image that is cut and resized to its size; None: none is.
    """

    def __init__(
        self,
        *,
        crop_padding: int,
        horizontal_flip: bool,
        color_jitter: float,
        trivial_augment: bool = False,
        random_erasing: float = 0.0,
        erased: Sequence[float] = (0.0, 0.0, 0.0),
        crop_scale: tuple[float, float] | None = None,
    ) -> None:
        self.crop_padding = crop_padding
        self.horizontal_flip = horizontal_flip
        self.color_jitter = color_jitter
        self.trivial_augment = trivial_augment
        self.random_erasing = random_erasing
        self.erased = tuple(erased)
        self.crop_scale = crop_scale

    def draw(self, count: int, seed: int, device: torch.device) -> Draws:
        """Return the random numbers of ``count`` images: all that an epoch needs, so that no batch waits for them.

        They are drawn on the CPU and are the same on every device.
        """
        generator = torch.Generator().manual_seed(seed)
        offsets = torch.randint(0, 2 * self.crop_padding + 1, (count, 2), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if self.horizontal_flip else 0.0)
        jitter = 1 + self.color_jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        operations = torch.randint(0, len(OPERATIONS), (count,), generator=generator)
        strengths = torch.randint(0, BINS, (count,), generator=generator) / (BINS - 1)
        strengths *= 1 - 2 * torch.randint(0, 2, (count,), generator=generator)
        erasing = torch.rand(count, 5, generator=generator)
        boxes = crop_boxes(torch.rand(count, 4, generator=generator), self.crop_scale or (1.0, 1.0))
        moved = (values.to(device) for values in (strengths, erasing, boxes))
        return Draws(offsets.to(device), mirrored.to(device), jitter.to(device), operations, *moved)

    def geometries(self, draws: Draws, size: tuple[int, int]) -> Iterator[Geometry]:
        """Yield where the pixels of images of ``size`` (H, W) go, step by step; what has left an image does not return.

        What ``trivial_augment`` moves is left out: it turns and shears.
        """
        if self.crop_scale is not None:
            yield _of_resized_crops(draws.boxes, size)
        if self.crop_padding or self.horizontal_flip:
            yield _of_windows(draws.offsets - self.crop_padding, draws.mirrored, size)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Return uint8 ``images`` (B, H, W, 3), changed, as float32 in [0, 1] of shape (B, 3, H, W), channels last."""
        if self.crop_scale is not None:
            images = resized_crops(images, draws.boxes)
        if self.crop_padding or self.horizontal_flip:
            images = crop_and_mirror(images, draws.offsets, draws.mirrored, padding=self.crop_padding)
        if self.trivial_augment:
            images = trivial_augment(images, draws.operations, draws.strengths)
        shown = to_unit_range(images.permute(0, 3, 1, 2))
        if self.color_jitter:
            shown = jitter_colors(shown, draws.jitter)
        return erase(shown, draws.erasing, self.random_erasing, self.erased) if self.random_erasing else shown


def _of_resized_crops(boxes: Tensor, size: tuple[int, int]) -> Geometry:
    """Return what ``resized_crops`` does."""
    height, width = size
    left, top, wide, tall = boxes.unbind(dim=1)
    return Geometry(1 / wide, -left * width / wide, 1 / tall, -top * height / tall, size)


def _of_windows(starts: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Geometry:
    """Return what ``crop_and_mirror`` does; ``starts`` (N, 2) are the row and the column at which a window begins."""
    row, column = starts.to(torch.float32).unbind(dim=1)
    direction = torch.where(mirrored, -1.0, 1.0)
    shift = torch.where(mirrored, size[1] + column, -column)
    return Geometry(direction, shift, torch.ones_like(row), -row, size)


def to_unit_range(images: Tensor) -> Tensor:
    """Return uint8 ``images`` as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def crop_and_mirror(images: Tensor, offsets: Tensor, mirrored: Tensor, *, padding: int) -> Tensor:
    """Return each image (B, H, W, C) shifted and perhaps mirrored, zeros moving in at the edges.

    ``offsets`` (B, 2) are the row and the column, from 0 to 2 * ``padding``, of the window in the padded image;
    ``mirrored`` (B,) says which windows are read from right to left.
    """
    height, width = images.shape[1:3]
    padded = functional.pad(images, (0, 0) + (padding,) * 4)  # (B, H + 2p, W + 2p, C)
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + offsets[:, 1:]  # (B, W)
    rows = torch.arange(height, device=images.device) + offsets[:, :1]  # (B, H)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)


def erase(images: Tensor, draws: Tensor, probability: float, color: Sequence[float]) -> Tensor:
    """Return ``images`` (B, 3, H, W), some with a rectangle of ``color``; ``draws`` (B, 5) are as in ``Draws``."""
    height, width = images.shape[2:]
    chosen, share, shape, *place = draws.unbind(dim=1)
    area = height * width * (ERASED_SHARE[0] + (ERASED_SHARE[1] - ERASED_SHARE[0]) * share)
    ratio = torch.exp(math.log(ERASED_RATIO) * (2 * shape - 1))
    inside = chosen[:, None, None] < probability
    for side, length, at, axis in ((height, area * ratio, place[0], 1), (width, area / ratio, place[1], 2)):
        length = length.sqrt().round().clamp(1, side)  # noqa: PLW2901
        first = (at * (side - length + 1)).floor()
        positions = torch.arange(side, device=images.device)
        within = (positions >= first[:, None]) & (positions < (first + length)[:, None])  # (B, side)
        inside = inside & within.unsqueeze(3 - axis)  # (B, H, W) in the end
    return torch.where(inside[:, None], images.new_tensor(color)[:, None, None], images)


def jitter_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Return ``images`` (B, 3, H, W) in [0, 1] with brightness, contrast and saturation changed, in that order.

    ``factors`` (B, 3) multiply the pixels, their distance from the image's mean luma, and their distance from their own
    luma, as torchvision's ``ColorJitter`` does; values are clamped to [0, 1] after each.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(dim=1)  # (B, 1, 1, 1) each
    images = (images * brightness).clamp(0, 1)
    images = torch.lerp(_luma(images).mean(dim=(1, 2, 3), keepdim=True), images, contrast).clamp(0, 1)
    return torch.lerp(_luma(images), images, saturation).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) of ``images`` (B, 3, H, W)."""
    red, green, blue = (images[:, i : i + 1] for i in range(3))
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue
