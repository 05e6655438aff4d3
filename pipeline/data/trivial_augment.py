"""TrivialAugment (Müller and Hutter 2021, wide): one operation of a random strength for each image of a batch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

BINS = 31
"""Strengths, evenly spaced from nothing to the largest."""
FARTHEST = 32
"""Pixels of the largest shift."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""From images uint8 (B, H, W, 3) and their strengths (B,), -1 to 1, to images of the same form."""


def trivial_augment(images: Tensor, operations: Tensor, strengths: Tensor) -> Tensor:
    """Return ``images`` uint8 (B, H, W, 3), each changed by the operation whose number ``operations`` (B,) has.

    ``operations`` are on the CPU, so that choosing them waits for no device; ``strengths`` (B,) are -1 to 1.
    """
    changed = images.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        chosen = (operations == number).nonzero().squeeze(1).to(images.device)
        if len(chosen):
            changed[chosen] = operation(images[chosen], strengths[chosen])
    return changed


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Return ``images`` whose pixel at (x, y) is the one nearest to ``matrices`` (B, 2, 3) times (x, y, 1).

    Coordinates count from the middle of the image; what lies outside of it is black.
    """
    count, height, width = images.shape[:3]
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device) - (height - 1) / 2,
        torch.arange(width, device=images.device) - (width - 1) / 2,
        indexing="ij",
    )
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, H * W)
    from_x, from_y = (matrices @ places).unbind(dim=1)  # (B, H * W) each
    column = (from_x + (width - 1) / 2).round().long()
    row = (from_y + (height - 1) / 2).round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    batch = torch.arange(count, device=images.device)[:, None]
    found = images[batch, row.clamp(0, height - 1), column.clamp(0, width - 1)]  # (B, H * W, 3)
    return (found * inside[..., None]).view_as(images)


def _affine(entry: Callable[[Tensor], dict[tuple[int, int], Tensor]]) -> Operation:
    """Return the operation that moves pixels by a matrix, of which ``entry`` returns what differs from the identity."""

    def operation(images: Tensor, strengths: Tensor) -> Tensor:
        matrices = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
        for (row, column), values in entry(strengths).items():
            matrices[:, row, column] = values
        return _warp(images, matrices)

    return operation


def _rotation(strengths: Tensor) -> dict[tuple[int, int], Tensor]:
    angles = strengths * math.radians(135)
    return {(0, 0): angles.cos(), (0, 1): -angles.sin(), (1, 0): angles.sin(), (1, 1): angles.cos()}


def _blend(other: Callable[[Tensor], Tensor]) -> Operation:
    """Return the operation that moves images, as float32, away from or towards what ``other`` makes of them."""

    def operation(images: Tensor, strengths: Tensor) -> Tensor:
        shown = images.to(torch.float32)
        factors = 1 + 0.99 * strengths[:, None, None, None]
        return torch.lerp(other(shown), shown, factors).clamp_(0, 255).to(torch.uint8)

    return operation


def _luma(images: Tensor) -> Tensor:
    return (images * images.new_tensor(GREY)).sum(dim=-1, keepdim=True).floor()


def _blurred(images: Tensor) -> Tensor:
    """Return ``images`` (B, H, W, 3) smoothed over 3 x 3 pixels; those at the edges stay."""
    if min(images.shape[1:3]) < 3:
        return images
    weights = torch.full((3, 1, 3, 3), 1 / 13, device=images.device)
    weights[:, :, 1, 1] = 5 / 13
    smooth = functional.conv2d(images.permute(0, 3, 1, 2), weights, groups=3).round_()
    result = images.clone()
    result[:, 1:-1, 1:-1] = smooth.permute(0, 2, 3, 1)
    return result


def _posterize(images: Tensor, strengths: Tensor) -> Tensor:
    dropped = (strengths.abs() * 6).round().to(torch.int32)[:, None, None, None]  # of 8 bits
    return ((images.to(torch.int32) >> dropped) << dropped).to(torch.uint8)


def _solarize(images: Tensor, strengths: Tensor) -> Tensor:
    threshold = 255 * (1 - strengths.abs())[:, None, None, None]
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    shown = images.to(torch.float32)
    low, high = shown.amin(dim=(1, 2), keepdim=True), shown.amax(dim=(1, 2), keepdim=True)
    stretched = ((shown - low) * (255 / (high - low).clamp(min=1))).clamp_(0, 255)
    return torch.where(high > low, stretched, shown).to(torch.uint8)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import equalize  # takes seconds

    changed: Tensor = equalize(images.permute(0, 3, 1, 2))
    return changed.permute(0, 2, 3, 1)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, _: images,
    "shear_x": _affine(lambda strengths: {(0, 1): 0.99 * strengths}),
    "shear_y": _affine(lambda strengths: {(1, 0): 0.99 * strengths}),
    "translate_x": _affine(lambda strengths: {(0, 2): (FARTHEST * strengths).trunc()}),
    "translate_y": _affine(lambda strengths: {(1, 2): (FARTHEST * strengths).trunc()}),
    "rotate": _affine(_rotation),
    "brightness": _blend(torch.zeros_like),
    "color": _blend(_luma),
    "contrast": _blend(lambda images: _luma(images).mean(dim=(1, 2, 3), keepdim=True)),
    "sharpness": _blend(_blurred),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
