"""Data sources by name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.sources.digits import digits_source
from pipeline.data.sources.image_folder import open_image_folder
from pipeline.data.splits import ImageSource


@contextlib.contextmanager
def open_source(name: str, root: Path | None, *, download: bool) -> Iterator[ImageSource]:
    """Yield the images of the source ``name``; ``root`` is needed by all but ``digits``.

    Raises:
        UserError: the source's files are missing, damaged or not laid out as documented.
    """
    if root is None:
        assert name == "digits"
        yield digits_source()
    elif name == "imagefolder":
        with open_image_folder(root) as source:
            yield source
    else:
        from pipeline.data.sources.cifar import cifar_source  # noqa: PLC0415  (PyTorch takes seconds)

        yield cifar_source(name, root, download=download)
