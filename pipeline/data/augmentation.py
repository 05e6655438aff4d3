"""Random changes of a batch of images, computed on the device for all of them at once."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""


class Draws(NamedTuple):
    """The random numbers of some images; a row each, on the device."""

    offsets: Tensor
    """Row and column at which the crop starts, int64 (N, 2)."""
    mirrored: Tensor
    """Whether the image is mirrored, bool (N,)."""
    jitter: Tensor
    """Factors of brightness, contrast and saturation, float32 (N, 3)."""

    def rows(self, positions: slice) -> "Draws":
        """Return the draws of the images at ``positions``."""
        return Draws(*(values[positions] for values in self))


class Augmentation:
    """Shifted crops, mirroring and changes of colour.

    Args:
        crop_padding: zero pixels added around an image before a crop of its size is taken at a random place.
        horizontal_flip: mirror each image with probability one half.
        color_jitter: brightness, contrast and saturation are each multiplied by a factor drawn from 1 -/+ this.
    """

    def __init__(self, *, crop_padding: int, horizontal_flip: bool, color_jitter: float) -> None:
        self.crop_padding = crop_padding
        self.horizontal_flip = horizontal_flip
        self.color_jitter = color_jitter

    def draw(self, count: int, seed: int, device: torch.device) -> Draws:
        """Return the random numbers of ``count`` images: all that an epoch needs, so that no batch waits for them.

        They are drawn on the CPU and are the same on every device.
        """
        generator = torch.Generator().manual_seed(seed)
        offsets = torch.randint(0, 2 * self.crop_padding + 1, (count, 2), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if self.horizontal_flip else 0.0)
        jitter = 1 + self.color_jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        return Draws(offsets.to(device), mirrored.to(device), jitter.to(device))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Return uint8 ``images`` (B, H, W, 3), changed, as float32 in [0, 1] of shape (B, 3, H, W), channels last."""
        if self.crop_padding or self.horizontal_flip:
            images = crop_and_mirror(images, draws.offsets, draws.mirrored, padding=self.crop_padding)
        shown = to_unit_range(images.permute(0, 3, 1, 2))
        return jitter_colors(shown, draws.jitter) if self.color_jitter else shown


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
