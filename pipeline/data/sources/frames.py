"""In which frame a file's boxes are: that of the stored pixels, or that of the image as it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from pipeline.core.errors import UserError, readable_file
from pipeline.data.decoding import MAX_MEGAPIXELS, SIDEWAYS, open_image, orientation

Size = tuple[int, int]
"""Height and width in pixels."""
Boxes = NDArray[np.float64]
"""x1, y1, x2, y2 of each, shape (M, 4)."""

PNG_HEAD = 8
"""Bytes before the first chunk of a PNG file."""
CHUNK_AROUND = 4
"""Bytes of the checksum behind the content of a chunk."""
NOTES = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
"""Chunks of a PNG file in which a camera's note may stand, before or behind the pixels."""


class Frame(NamedTuple):
    """How an image is stored and shown."""

    stored: Size
    turned: int
    """How a camera says that it was held, 1 to 8 (EXIF): pixels are turned by it when they are read."""

    @property
    def is_sideways(self) -> bool:
        """Whether height and width change places when it is shown."""
        return self.turned >= SIDEWAYS

    @property
    def shown(self) -> Size:
        """Return height and width as it is shown."""
        return self.stored[::-1] if self.is_sideways else self.stored


def read_frame(file: Path, name: str) -> Frame | None:
    """Return what the head of the image ``file`` says; None where it is damaged, which whoever reads it is told."""
    try:
        with readable_file(name), file.open("rb") as opened:
            image = open_image(name, opened)
            turned = _orientation_of_png(opened, image) if image.format == "PNG" else orientation(image)
            return Frame((image.height, image.width), turned)
    except UserError:
        return None


def _orientation_of_png(opened: BinaryIO, image: ImageFile.ImageFile) -> int:
    """Return the orientation, for which Pillow decodes all pixels of a PNG file: that is left out without need."""
    place = opened.tell()
    has_notes = not NOTES.isdisjoint(_chunks(opened))
    opened.seek(place)
    too_large = image.width * image.height > MAX_MEGAPIXELS * 1e6
    return orientation(image) if has_notes and not too_large else 1


def _chunks(opened: BinaryIO) -> set[bytes]:
    """Return the names of the chunks of a PNG file."""
    found: set[bytes] = set()
    opened.seek(PNG_HEAD)
    while len(head := opened.read(8)) == 8:
        found.add(head[4:])
        opened.seek(int.from_bytes(head[:4], "big") + CHUNK_AROUND, 1)
    return found


def turned_boxes(boxes: Boxes, frame: Frame) -> Boxes:
    """Return ``boxes`` of the stored pixels of a ``frame`` that is sideways, as they lie when it is shown."""
    height, width = frame.stored
    x1, y1, x2, y2 = boxes.T
    sides = {
        5: (y1, x1, y2, x2),
        6: (height - y2, x1, height - y1, x2),
        7: (height - y2, width - x2, height - y1, width - x1),
        8: (y1, width - x2, y2, width - x1),
    }[frame.turned]
    return np.stack(sides, axis=1)
