"""What is seen on image files, from a package alone."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.arrays import Pixels
from pipeline.core.errors import UserError
from pipeline.core.printable import printable
from pipeline.core.text_table import counted
from pipeline.data.decoding import decode_image
from pipeline.data.image_bytes import read_image_bytes
from pipeline.data.sources.archive import is_archive, opened_folder
from pipeline.data.sources.image_tree import read_tree
from pipeline.package.reader import Package
from pipeline.package.verify import require_signature
from pipeline.runtimes.base import Runtime, predict
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Prediction

logger = logging.getLogger(__name__)

BATCH = 32


class ImageFile(NamedTuple):
    """An image to be looked at."""

    name: str
    """As the user knows it."""
    path: Path
    """Where it can be read."""


def open_runtime(package: Package, precision: str, *, provider: str, num_threads: int) -> OnnxRuntime:
    """Return a session over the file of ``precision``, which must be as its sum says.

    Raises:
        UserError: the package has no such file, it is damaged or another than the package says, or the provider is not
            available here.
    """
    (path,) = package.verified([package.file(precision).name])
    runtime = OnnxRuntime(path, provider=provider, num_threads=num_threads)
    require_signature(package.signature, runtime, path)
    return runtime


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
                found.append(ImageFile(str(path), path))
            elif path.exists():
                found += _images_below(path, stack.enter_context(opened_folder(path)))
            else:
                raise UserError(f"{printable(path)}: no such file, folder or archive")
        yield found


def _images_below(shown: Path, root: Path) -> list[ImageFile]:
    """Return the images below ``root``, called as if it were ``shown``."""
    tree = read_tree(root)
    images = [ImageFile(str(shown / file.relative_to(root)), file) for file in tree.files()]
    passed_over = tree.all_passed_over()
    if not images:
        raise UserError(f"{printable(shown)}: holds no images ({counted(passed_over) or 'it is empty'})")
    if passed_over:
        logger.warning("%s: passed over %s", printable(shown), counted(passed_over))
    return images


def predict_files(
    package: Package, runtime: Runtime, files: Sequence[ImageFile], *, top: int
) -> Iterator[Prediction | UserError]:
    """Yield what is seen on each image, at most ``top`` things, or why it cannot be read; a batch at a time.

    Images are prepared as those were that the package was trained on.
    """
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        read = [_pixels_or_why_not(file, package.image_size) for file in some]
        names = [file.name for file, pixels in zip(some, read, strict=True) if not isinstance(pixels, UserError)]
        known = [pixels for pixels in read if not isinstance(pixels, UserError)]
        found: Iterator[Prediction] = iter(())
        if known:
            outputs = predict(runtime, np.stack(known), len(known))  # (B, 3, H, W)
            found = iter(package.task.predictions(names, outputs, package.class_names, top=top))
        yield from (pixels if isinstance(pixels, UserError) else next(found) for pixels in read)


def _pixels_or_why_not(file: ImageFile, size: tuple[int, int]) -> Pixels | UserError:
    try:
        shown = printable(file.name)
        return decode_image(shown, read_image_bytes(file.path, shown), size).transpose(2, 0, 1)
    except UserError as error:
        return error
