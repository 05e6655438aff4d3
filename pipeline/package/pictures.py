"""The image files that a command is given: found, read, and brought to a network's input."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from pipeline.core.arrays import Pixels
from pipeline.core.errors import UserError
from pipeline.core.printable import printable
from pipeline.core.scratch import own_place
from pipeline.core.text_table import counted
from pipeline.data.decoding import MAX_MEGAPIXELS, Resize, TooManyPixelsError, decode_shown
from pipeline.data.image_bytes import read_image_bytes
from pipeline.data.reading import Fit, read_image
from pipeline.data.sources.archive import is_archive, opened_folder
from pipeline.data.sources.image_tree import read_tree
from pipeline.tasks.base import Image, Placement

logger = logging.getLogger(__name__)


SCALES: dict[Resize, Callable[[float, float], float]] = {"central_square": max, "letterbox": min}
"""Which of what the height and the width allow becomes the scale of an image: it covers the input, or fits into it."""


class ImageFile(NamedTuple):
    """An image to be looked at."""

    name: str
    """As the user knows it."""
    path: Path
    """Where it can be read."""
    place: PurePath = PurePath()
    """Where what is made of it lies in a folder of results, but for its suffix."""


class Picture(NamedTuple):
    """An image that was brought to a network's input."""

    pixels: Pixels
    """(3, H, W), as the network takes it."""
    placement: Placement


@contextlib.contextmanager
def image_files(paths: Sequence[Path]) -> Iterator[list[ImageFile]]:
    """Yield the files ``paths``, and in the place of folders and archives the images in them, sorted.

    Raises:
        UserError: there is nothing at a path, or no image in it; or it cannot be unpacked or listed.
    """
    with contextlib.ExitStack() as stack:
        found: list[ImageFile] = []
        for path in paths:
            if path.is_file() and not is_archive(path.name):
                found.append(ImageFile(str(path), path, PurePath(path.name)))
            elif path.exists():
                opened = opened_folder(path, place=None if path.is_dir() else own_place())  # not in a package's folder
                found += _images_below(path, stack.enter_context(opened))
            else:
                raise UserError(f"{printable(path)}: no such file, folder or archive")
        yield found


def _images_below(shown: Path, root: Path) -> list[ImageFile]:
    """Return the images below ``root``, called as if it were ``shown``."""
    tree = read_tree(root)
    below = [(file, file.relative_to(root)) for file in tree.files()]
    home = PurePath("" if shown.name == ".." else shown.name)
    images = [ImageFile(str(shown / name), file, home / name) for file, name in below]
    passed_over = tree.all_passed_over()
    if not images:
        raise UserError(f"{printable(shown)}: holds no images ({counted(passed_over) or 'it is empty'})")
    if passed_over:
        logger.warning("%s: passed over %s", printable(shown), counted(passed_over))
    return images


def read_whole(file: ImageFile) -> Image:
    """Return the image in ``file`` as it is shown, (H, W, 3).

    Raises:
        UserError: it cannot be read.
    """
    return read_image(printable(file.name), file.path, Fit())


def read_picture(file: ImageFile, image_size: tuple[int, int], *, resize: Resize) -> Picture | UserError:
    """Return the image in ``file`` brought to ``image_size`` (H, W) as in training, or why it cannot be read.

    Args:
        resize: how; see ``pipeline.tasks.base.Task.resize``.
    """
    name = printable(file.name)
    try:
        read = decode_picture(name, read_image_bytes(file.path, name), image_size, resize=resize)
    except UserError as error:
        return error
    return read._replace(placement=read.placement._replace(name=file.name))


def decode_picture(
    name: str, data: bytes, image_size: tuple[int, int], *, resize: Resize, max_megapixels: float = MAX_MEGAPIXELS
) -> Picture:
    """Return the image whose file's bytes are ``data``, brought to ``image_size`` (H, W) as in training.

    Args:
        resize: how; see ``pipeline.tasks.base.Task.resize``.

    Raises:
        TooManyPixelsError: it has more pixels than that; names it ``name``.
        UserError: it cannot be decoded; names it ``name``.
    """
    try:
        read = decode_shown(name, data, image_size, max_megapixels, how=resize)
    except TooManyPixelsError as error:
        width, height = error.size
        raise TooManyPixelsError(  # without the parameter of the pipeline, which a package's user does not have
            f"{name}: has {width} x {height} pixels, allowed are {max_megapixels:g} million; scale it down, or save "
            "it as a JPEG file that is not progressive, which takes less memory",
            error.size,
        ) from error
    scale = SCALES[resize](*(side / own for side, own in zip(image_size, read.size, strict=True)))
    return Picture(read.pixels.transpose(2, 0, 1), Placement(name, read.size, scale))
