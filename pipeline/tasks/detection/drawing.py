"""Detections drawn onto their image."""

import colorsys
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from pipeline.core.printable import printable
from pipeline.tasks.base import Image, Prediction

GOLDEN = 0.61803398875
"""Part of the circle of colours between two classes: neighbours in number look different."""
DARK = 140
"""Brightness below which text on a colour is white."""


def draw_detections(pixels: Image, prediction: Prediction) -> Image:
    """Return a copy of ``pixels`` (H, W, 3) with each box and the name of its class, the surest on top."""
    picture = Pillow.fromarray(pixels)
    longer = max(picture.size)
    width = max(1, longer // 320)
    font = ImageFont.load_default(max(10, longer // 50))
    draw = ImageDraw.Draw(picture)
    for thing in reversed(prediction.found["detections"]):
        color = class_color(thing["class"] if thing["category_id"] is None else thing["category_id"])
        draw.rectangle(thing["box"], outline=color, width=width)
        text = f"{printable(thing['class'])} {thing['score']:.0%}"
        _write(draw, thing["box"][:2], text, font, color, picture.width)
    return np.asarray(picture)


def class_color(which: int | str) -> tuple[int, int, int]:
    """Return the colour of the class of this number, or name where it has none; the same on every image."""
    number = which if isinstance(which, int) else zlib.crc32(which.encode())
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.85, 0.95))
    return red, green, blue


def _write(
    draw: ImageDraw.ImageDraw,
    corner: Sequence[float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    color: tuple[int, int, int],
    width: int,
) -> None:
    """Write ``text`` above the upper left ``corner`` of a box; in the box, where the image, ``width`` wide, ends."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    wide, high = right - left + 2, bottom - top + 2
    x = max(0.0, min(corner[0], width - wide))
    y = corner[1] - high if corner[1] >= high else corner[1]
    draw.rectangle((x, y, x + wide, y + high), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    draw.text((x + 1 - left, y + 1 - top), text, "white" if brightness < DARK else "black", font)
