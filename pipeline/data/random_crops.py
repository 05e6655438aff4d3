"""Random resized crops of image files, for training: no more is decoded than the crop needs."""

import math
import random
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.data.decoding import SIDEWAYS, counted_pixels, largest_factor, load_part, open_image, orientation
from pipeline.data.jpeg_header import SEQUENTIAL, JpegHeader, first_rows, read_jpeg_header

RATIO = (3 / 4, 4 / 3)
"""Width to height of a random crop (Szegedy et al. 2015)."""
ATTEMPTS = 10
"""Crops that are drawn until one lies inside the image."""
MIRRORED = {2: (1,), 3: (0, 1), 4: (0,), 6: (0,), 7: (0, 1), 8: (1,)}
"""Axes along which an image of each orientation is mirrored to undo it; from ``SIDEWAYS`` on, axes are swapped too."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


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
    header = read_jpeg_header(data)
    if header is not None and header.components in {1, 3}:
        box = random_box(header.width, header.height, scale, generator)
        part = _jpeg_part(data, header, box, size, max_megapixels)
        if part is not None:
            turned = orientation(open_image(name, data)) if header.has_exif else 1
            return upright(resized(part, size), turned)
    image = open_image(name, data)
    box = random_box(*image.size, scale, generator)
    sides = box.left, box.top, box.left + box.width, box.top + box.height
    return resized(torch.from_numpy(np.array(load_part(name, image, sides, size, max_megapixels))), size)


def _jpeg_part(data: bytes, header: JpegHeader, box: Box, size: int, max_megapixels: float) -> Tensor | None:
    """Return the part ``box`` of a JPEG file, (h, w, 3), at a reduced scale where it still has ``size`` pixels a side.

    None: it is too large, or of a kind that this decoder does not read.
    """
    factor = largest_factor((box.width, box.height), (size, size))
    rows, height = first_rows(data, header, box.top + box.height)
    least_height, least_width = -(-height // factor), -(-header.width // factor)
    counted = counted_pixels(header.width, header.height, factor if header.frame in SEQUENTIAL else 1)
    if counted > max_megapixels * 1e6:
        return None
    try:  # not strictly: the rest behind the rows is no fault, and prepare_data has decoded the same file whole
        pixels = simplejpeg.decode_jpeg(
            rows, "RGB", min_height=least_height, min_width=least_width, min_factor=factor, strict=False
        )
    except ValueError:
        return None
    left, top, right, bottom = (
        end // factor for end in (box.left, box.top, box.left + box.width, box.top + box.height)
    )
    return torch.from_numpy(pixels[top:bottom, left:right])


def resized(part: Tensor, size: int) -> Tensor:
    """Return ``part`` (h, w, 3) resized (bilinear, antialiased) to (size, size, 3), uint8."""
    shown = part.contiguous()[None].permute(0, 3, 1, 2)  # (1, 3, h, w), channels last in memory, which is fastest
    return functional.interpolate(shown, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def upright(image: Tensor, turned: int) -> Tensor:
    """Return the square ``image`` (size, size, 3) as it was seen, from how the camera was held; see ``orientation``.

    A random part is as random in the file's rows and columns as in those of the upright image.
    """
    shown = image.flip(MIRRORED[turned]) if turned in MIRRORED else image
    return shown.transpose(0, 1) if turned >= SIDEWAYS else shown
