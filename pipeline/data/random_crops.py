"""Random resized crops of image files, for training: no more is decoded than the crop needs."""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from PIL import ImageFile
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from pipeline.data.decoding import SIDEWAYS, check_size, is_jpeg, largest_factor, load_upright, open_image, orientation

RATIO = (3 / 4, 4 / 3)
"""Width to height of a random crop (Szegedy et al. 2015)."""
ATTEMPTS = 10
"""Crops that are drawn until one lies inside the image."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def ends(self) -> tuple[int, int, int, int]:
        """Return the first column and row, and those after the last."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def random_box(width: int, height: int, scale: tuple[float, float], generator: random.Random) -> Box:
    """Return a part of an image of ``width`` x ``height`` pixels, of a random share of its area, shape and place.

    Args:
        scale: smallest and largest share of the area; where no such part is found, the largest one in the middle.
    """
    shapes = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(*shapes))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return Box(generator.randint(0, width - wide), generator.randint(0, height - high), wide, high)
    wide, high = min(width, max(1, round(height * RATIO[1]))), min(height, max(1, round(width / RATIO[0])))
    return Box((width - wide) // 2, (height - high) // 2, wide, high)


def random_crop(
    name: str, data: bytes, *, size: int, scale: tuple[float, float], seed: int, max_megapixels: float
) -> Tensor:
    """Return a random part of the image in ``data``, resized (bilinear, antialiased): uint8 (size, size, 3).

    Args:
        scale: as for ``random_box``.
        seed: decides which part.

    Raises:
        UserError: as for ``decode_image``.
    """
    generator = random.Random(seed)  # noqa: S311  (no secret)
    image = open_image(name, data)
    if not is_jpeg(image):
        pixels = torch.from_numpy(np.array(load_upright(name, image, max_megapixels=max_megapixels)))
        box = random_box(pixels.shape[1], pixels.shape[0], scale, generator)
        return resized(pixels, box, size)
    turned = orientation(image)
    width, height = image.size if turned < SIDEWAYS else image.size[::-1]
    box = random_box(width, height, scale, generator)
    factor = largest_factor((box.width, box.height), (size, size))
    check_size(name, image, factor, max_megapixels)
    if factor == turned == 1 and (whole := _whole(data, image)) is not None:
        return resized(whole, box, size)
    picture = load_upright(name, image, factor=factor, max_megapixels=max_megapixels)
    left, top, right, bottom = (end // factor for end in box.ends())
    part = torch.from_numpy(np.array(picture.crop((left, top, right, bottom))))
    return resized(part, Box(0, 0, part.shape[1], part.shape[0]), size)


def _whole(data: bytes, image: ImageFile.ImageFile) -> Tensor | None:
    """Return all of a JPEG file, (H, W, 3), without Pillow's detours; None where only Pillow can say what it is."""
    if image.mode not in {"L", "RGB"}:
        return None
    try:
        pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    return pixels.permute(1, 2, 0)


def resized(pixels: Tensor, box: Box, size: int) -> Tensor:
    """Return the part ``box`` of ``pixels`` (H, W, 3), resized (bilinear, antialiased) to (size, size, 3), uint8."""
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width].contiguous()
    shown = part.permute(2, 0, 1)[None]  # (1, 3, h, w), channels last in memory
    return functional.interpolate(shown, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
