"""Contact sheets: images in rows, with what is found under each."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.files import write_bytes
from pipeline.core.plotting import FONT
from pipeline.tasks.base import Tile

COLUMNS = 8
CELL, SIDE, GAP = 160, 144, 8
"""Pixels: of a cell's width, of the square that an image is brought to fit, and between what is written."""
LINE, TITLE_HEIGHT = 14, 32
TEXT, RIGHT, WRONG = (32, 32, 32), (0, 112, 32), (192, 0, 0)
QUALITY = 80
"""Of the JPEG file."""


def write_gallery(tiles: Sequence[Tile], path: Path, *, title: str, empty: str) -> None:
    """Write ``tiles`` in rows as the JPEG file ``path``, whose bytes depend on them alone.

    Args:
        empty: what the picture says where there is no tile.
    """
    columns = min(COLUMNS, max(len(tiles), 4))
    rows = -(-len(tiles) // columns)
    height = SIDE + LINE * max((len(tile.lines) for tile in tiles), default=0) + 2 * GAP
    sheet = Image.new("RGB", (columns * CELL + GAP, TITLE_HEIGHT + max(rows * height, LINE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    title_font, font = _font(14), _font(11)
    draw.text((GAP, GAP), _shortened(title, title_font, sheet.width - 2 * GAP), TEXT, title_font)
    if not tiles:
        draw.text((GAP, TITLE_HEIGHT), empty, TEXT, font)
    for number, tile in enumerate(tiles):
        left, top = GAP + number % columns * CELL, TITLE_HEIGHT + number // columns * height
        picture = _fitted(tile)
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        for line, text in enumerate(tile.lines):
            color = TEXT if line == 0 else RIGHT if tile.is_right else WRONG
            place = (left, top + SIDE + GAP // 2 + line * LINE)
            draw.text(place, _shortened(text, font, CELL - GAP, keep_end=line == 0), color, font)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    write_bytes(path, buffer.getvalue())


def _fitted(tile: Tile) -> Image.Image:
    """Return the image with its longer side of ``SIDE`` pixels; pixels of a small one stay squares."""
    height, width = tile.pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(tile.pixels)).resize(size, how)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, size, layout_engine=ImageFont.Layout.BASIC)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int, *, keep_end: bool = False) -> str:
    """Return ``text`` as far as it fits into ``width`` pixels; of a path the end says more."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text}…"
