"""Random resized crops of packed images, for a whole batch on the device."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.data.random_crops import RATIO


def crop_boxes(draws: Tensor, scale: tuple[float, float]) -> Tensor:
    """Return the part of each image that is cut: left, top, width and height as shares of its sides, (N, 4).

    ``scale`` are the smallest and the largest share of the area; the shape is drawn as of files, and a part that
    would be longer than its image is cut to that. ``draws`` (N, 4), uniform in [0, 1), are of area, shape, column and
    row.
    """
    area, shape, column, row = draws.unbind(dim=1)
    area = scale[0] + (scale[1] - scale[0]) * area
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = torch.exp(low + (high - low) * shape)
    wide, tall = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return torch.stack([column * (1 - wide), row * (1 - tall), wide, tall], dim=1)


def resized_crops(images: Tensor, boxes: Tensor) -> Tensor:
    """Return the part of each of ``images`` (B, H, W, 3), uint8, at ``boxes`` (B, 4), resized to (H, W), bilinear.

    Parts are smaller than what they are resized to, so that nothing needs to be averaged.
    """
    left, top, wide, tall = boxes.unbind(dim=1)
    zero = torch.zeros_like(wide)
    rows = torch.stack([wide, zero, 2 * left + wide - 1]), torch.stack([zero, tall, 2 * top + tall - 1])  # (3, B) each
    shown = images.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
    grid = functional.affine_grid(torch.stack(rows).permute(2, 0, 1), list(shown.shape), align_corners=False)
    cut = functional.grid_sample(shown, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
