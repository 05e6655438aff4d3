"""Random views of image files that show whole objects: larger, smaller, or a part, on a canvas of one size."""

import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.decoding import load_reduced, load_upright, open_image, size_in_head
from pipeline.data.letterbox import Size, letterbox_scale, padded
from pipeline.data.random_crops import random_box


class View(NamedTuple):
    """Where the pixels of an image go: x to x * ``scale_x`` + ``shift_x``, y likewise, counted in edges of pixels."""

    scale_x: float = 1.0
    shift_x: float = 0.0
    scale_y: float = 1.0
    shift_y: float = 0.0


UNMOVED = View()


def jittered(size: Size, image_size: Size, span: tuple[float, float], generator: random.Random) -> View:
    """Return the view of an image of ``size`` (h, w) that is larger or smaller than fits into ``image_size`` (H, W).

    Args:
        span: smallest and largest factor; what is larger is cut at a random place, beside what is smaller is padding.
    """
    scale = letterbox_scale(size, image_size) * generator.uniform(*span)
    height, width = (max(1, round(side * scale)) for side in size)
    top, left = (
        generator.randint(0, max(0, grown - side)) for grown, side in zip((height, width), image_size, strict=True)
    )
    return View(width / size[1], -left, height / size[0], -top)


def random_part(size: Size, image_size: Size, share: tuple[float, float], generator: random.Random) -> View:
    """Return the view of a random part of an image of ``size`` (h, w) that fills ``image_size`` (H, W).

    Args:
        share: smallest and largest share of the area; its shape is drawn around that of ``image_size``.
    """
    stretch = size[1] / max(1, round(size[1] * image_size[0] / image_size[1]))
    box = random_box(round(size[1] / stretch), size[0], share, generator)
    scale_x, scale_y = image_size[1] / (box.width * stretch), image_size[0] / box.height
    return View(scale_x, -box.left * stretch * scale_x, scale_y, -box.top * scale_y)


def read_view(
    name: str, data: bytes, draw: Callable[[Size], View], image_size: Size, max_megapixels: float
) -> tuple[NDArray[np.uint8], View]:
    """Return what a view of the image in ``data`` shows (H, W, 3), and where its letterboxed pixels go.

    Args:
        draw: returns the view, from the (h, w) of the image as it is shown.
        image_size: (H, W).

    Raises:
        UserError: as for ``decode_image``.
    """
    image = open_image(name, data)
    size = size_in_head(image)
    if size is None:
        picture, factor = load_upright(name, image, max_megapixels), 1
        size = picture.height, picture.width
        view = draw(size)
    else:
        view = draw(size)
        wanted = max(1, round(size[1] * view.scale_x)), max(1, round(size[0] * view.scale_y))
        picture, factor = load_reduced(name, image, wanted, max_megapixels)
    shown = padded(_shown(picture, factor, view, size, image_size), image_size)
    scale = letterbox_scale(size, image_size)
    return shown, view._replace(scale_x=view.scale_x / scale, scale_y=view.scale_y / scale)


def _shown(picture: Image.Image, factor: int, view: View, size: Size, image_size: Size) -> NDArray[np.uint8]:
    """Return what ``view`` shows of an image of ``size`` (h, w), which is reduced to ``picture``, without padding."""
    ends = []
    for own, canvas, scale, shift in (
        (size[1], image_size[1], view.scale_x, view.shift_x),
        (size[0], image_size[0], view.scale_y, view.shift_y),
    ):
        seen = min(canvas, max(1, round(own * scale + shift)))
        ends.append((-shift / scale / factor, min(own, (seen - shift) / scale) / factor, seen))
    (left, right, width), (top, bottom, height) = ends
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom)))
