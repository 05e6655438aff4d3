"""Read many image files at once, one process per CPU core."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError, readable_file
from pipeline.core.processes import end_with_parent, num_cores
from pipeline.data.decoding import central_square, decode_image

FEW = 256
"""Below so many images starting processes costs more than it saves."""
CHUNK = 32

Image = NDArray[np.uint8]


def read_image(name: str, file: Path) -> Image:
    """Return the RGB image (H, W, 3) in ``file``; messages call it ``name``.

    Raises:
        UserError: the file cannot be read, or is no image that can be decoded.
    """
    with readable_file(file):
        data = file.read_bytes()
    return decode_image(name, data)


def read_images(names: Sequence[str], files: Sequence[Path], size: int | None) -> Iterator[Image | UserError]:
    """Yield the image (H, W, 3) in each of ``files``, in their order, or why there is none.

    ``size`` brings it to a central square of so many pixels; None leaves it as it is.
    """
    sizes = [size] * len(files)
    if len(files) < FEW or num_cores() == 1:
        yield from map(_fitted_or_why_not, names, files, sizes)
        return
    fork = multiprocessing.get_context("fork")  # workers of a forkserver are not this process's children
    with ProcessPoolExecutor(num_cores(), fork, end_with_parent, (os.getpid(),)) as pool:
        yield from pool.map(_fitted_or_why_not, names, files, sizes, chunksize=CHUNK)


def _fitted_or_why_not(name: str, file: Path, size: int | None) -> Image | UserError:
    try:
        return fitted(read_image(name, file), size)
    except UserError as error:
        return error


def fitted(image: Image, size: int | None) -> Image:
    """Return ``image`` as a central square of ``size`` pixels, or as it is where that is None."""
    return image if size is None else central_square(image, size)
