"""Whole images on a canvas of one size: scaled until they fit, at the top left, the rest one grey.

Made with NumPy and Pillow alone, so that a package shows its network what training has read.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

PADDING = 114
"""Value of the pixels beside the image, of each channel; between black and white, as detectors are widely trained."""

Image = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width."""


def letterbox_scale(size: tuple[float, float], image_size: Size) -> float:
    """Return how many pixels of the canvas ``image_size`` a pixel of an image of ``size`` becomes, along both sides."""
    return min(canvas / side for canvas, side in zip(image_size, size, strict=True))


def letterboxed_size(size: tuple[float, float], image_size: Size) -> Size:
    """Return the height and width that an image of ``size`` has on the canvas ``image_size``, at least 1 each."""
    scale = letterbox_scale(size, image_size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def letterboxed(image: Image, image_size: Size) -> Image:
    """Return ``image`` (h, w, 3) on the canvas (H, W, 3): resized (bicubic, antialiased), the rest ``PADDING``."""
    return padded(np.asarray(scaled_to_fit(Pillow.fromarray(image), image_size)), image_size)


def scaled_to_fit(picture: Pillow.Image, image_size: Size, extent: tuple[float, float] | None = None) -> Pillow.Image:
    """Return ``picture`` resized (bicubic, antialiased) until it just fits into ``image_size`` (H, W).

    ``extent`` is how many of its columns and rows show the image; None: all.
    """
    across, down = extent or picture.size
    height, width = letterboxed_size((down, across), image_size)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Pillow.Resampling.BICUBIC, box=(0, 0, across, down))


def padded(image: Image, image_size: Size) -> Image:
    """Return ``image`` at the top left of a canvas of ``image_size`` (H, W), or itself where it fills that."""
    height, width = image.shape[:2]
    if (height, width) == image_size:
        return image
    canvas = np.full((*image_size, 3), PADDING, dtype=np.uint8)
    canvas[:height, :width] = image
    return canvas
