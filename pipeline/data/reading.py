"""Read many image files at once, one process per CPU core."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import LostProcessError, UserError
from pipeline.core.processes import end_with_parent, num_cores
from pipeline.data.decoding import MAX_MEGAPIXELS, Resize, Shown, brought_to, decode_shown
from pipeline.data.image_bytes import read_image_bytes

FEW = 256
"""Below so many images starting processes costs more than it saves."""
CHUNK = 32
AHEAD = 3
"""Chunks of each process that wait for the reader, which bounds the memory they take."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Fit:
    """What images are brought to when they are read."""

    size: tuple[int, int] | None = None
    """Height and width; None leaves images as they are."""
    max_megapixels: float = MAX_MEGAPIXELS
    """Largest number of pixels to decode, in millions."""
    how: Resize = "central_square"
    """``central_square``: resized to cover ``size``, then the centre cut out; ``letterbox``: see ``letterboxed``."""


def read_image(name: str, file: Path, fit: Fit) -> Image:
    """Return the RGB image (H, W, 3) in ``file``; messages call it ``name``.

    Raises:
        UserError: the file cannot be read, or is no image that can be decoded.
    """
    return read_shown(name, file, fit).pixels


def read_shown(name: str, file: Path, fit: Fit) -> Shown:
    """Return the image in ``file`` and how large it is before it is brought to a size; else as ``read_image``."""
    return decode_shown(name, read_image_bytes(file, name), fit.size, fit.max_megapixels, how=fit.how)


def read_images(names: Sequence[str], files: Sequence[Path], fit: Fit) -> Iterator[Image | UserError]:
    """Yield the image (H, W, 3) in each of ``files``, in their order, or why there is none.

    Raises:
        LostProcessError: a process that reads was killed.
    """
    chunks = [slice(start, start + CHUNK) for start in range(0, len(files), CHUNK)]
    if len(files) < FEW or num_cores() == 1:
        for chunk in chunks:
            yield from _read_chunk(names[chunk], files[chunk], fit)
        return
    fork = multiprocessing.get_context("fork")  # workers of a forkserver are not this process's children
    pool = ProcessPoolExecutor(num_cores(), fork, end_with_parent, (os.getpid(),))
    waiting: deque[Future[list[Image | UserError]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_read_chunk, names[chunk], files[chunk], fit))
            if len(waiting) > AHEAD * num_cores():
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise LostProcessError.while_doing("reads images") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _read_chunk(names: Sequence[str], files: Sequence[Path], fit: Fit) -> list[Image | UserError]:
    return [_image_or_why_not(name, file, fit) for name, file in zip(names, files, strict=True)]


def _image_or_why_not(name: str, file: Path, fit: Fit) -> Image | UserError:
    try:
        return read_image(name, file, fit)
    except UserError as error:
        return error


def fitted(image: Image, fit: Fit) -> Image:
    """Return ``image``, which is decoded already, as ``fit`` says."""
    return image if fit.size is None else brought_to(image, fit.size, how=fit.how)
