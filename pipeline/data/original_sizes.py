"""How large images are before they are brought to one size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.errors import UserError
from pipeline.data.decoding import open_image
from pipeline.data.image_bytes import read_image_bytes
from pipeline.data.reading import Fit
from pipeline.data.splits import ImageSet

SAMPLED = 1000
"""Images that are looked at, evenly spread over the split."""

Size = tuple[int, int]
"""Width and height in pixels."""


class OriginalSizes(NamedTuple):
    """The sizes of some images, by their area."""

    smallest: Size
    median: Size
    largest: Size
    num_images: int
    """Images that were looked at."""


def original_sizes(images: ImageSet) -> OriginalSizes | None:
    """Return the sizes of a sample of ``images``, from the heads of their files where they have such.

    What a head does not tell is left out; None: no head tells any.
    """
    positions = np.unique(np.linspace(0, len(images.categories) - 1, SAMPLED).round().astype(np.int64))
    if images.files:
        found = [_size_in_head(images.files[position]) for position in positions]
    else:
        read = images.read(positions, Fit())
        found = [None if isinstance(image, UserError) else (image.shape[1], image.shape[0]) for image in read]
    sizes = sorted((size for size in found if size is not None), key=lambda size: (size[0] * size[1], size))
    return OriginalSizes(sizes[0], sizes[len(sizes) // 2], sizes[-1], len(sizes)) if sizes else None


def _size_in_head(file: Path) -> Size | None:
    try:
        return open_image(str(file), read_image_bytes(file, str(file))).size
    except UserError:
        return None  # whether it is damaged is for the decoder to say, which reads every image
