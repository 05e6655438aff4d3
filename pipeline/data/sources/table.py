"""The table of data sources: where images come from.

To add one: a file of this folder with a function that opens it, and an entry here. Nothing heavy is imported before an
entry is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.table import Entry, Table
from pipeline.data.sources.fingerprints import directory_or_archive, fetched_by_torchvision

if TYPE_CHECKING:
    from pipeline.data.splits import ImageSource

    Open = Callable[[Path | None, bool], contextlib.AbstractContextManager[ImageSource]]
    """From the root and whether the source may download to the images, for as long as the block lasts."""

Fingerprint = Callable[[Path, bool], str]
"""From the root and whether the source may download to a text that changes with the user's images.

It raises UserError where the root cannot be what the source needs; it runs on every repro, so it must be quick.
"""


@dataclass(frozen=True, kw_only=True)
class SourceEntry(Entry):
    """A data source in the table."""

    load: Callable[[], Open]
    fingerprint: Fingerprint | None = None
    """None: the source comes with the pipeline and takes no root."""
    has_files: bool = False
    """Whether each image is a file below the root, so that images can be decoded on the fly."""
    image_size: int | None = None
    """Pixels of height and width of its images; None: those of the user's."""
    task: str = "classification"
    """The task whose targets it brings; a name of ``pipeline.tasks.table.TASKS``."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        if self.fingerprint is not None and not callable(self.fingerprint):
            yield f"has the fingerprint {self.fingerprint!r}; give a function, or None"

    @property
    def needs_root(self) -> bool:
        """Whether the user says where the images are."""
        return self.fingerprint is not None


def _digits() -> Open:
    from pipeline.data.sources.digits import open_digits

    return open_digits


def _image_folder() -> Open:
    from pipeline.data.sources.image_folder import open_image_folder

    return open_image_folder


def _cifar10() -> Open:
    from pipeline.data.sources.cifar import open_cifar10

    return open_cifar10


def _cifar100() -> Open:
    from pipeline.data.sources.cifar import open_cifar100

    return open_cifar100


SOURCES = Table(
    "data source",
    SourceEntry(name="digits", description="8 x 8 scans of handwritten digits, embedded", load=_digits, image_size=8),
    SourceEntry(
        name="imagefolder",
        description="a folder of images for each class, or an archive of such",
        load=_image_folder,
        fingerprint=directory_or_archive,
        has_files=True,
    ),
    SourceEntry(
        name="cifar10",
        image_size=32,
        description="CIFAR-10 in its original binary form",
        load=_cifar10,
        fingerprint=fetched_by_torchvision("cifar10"),
    ),
    SourceEntry(
        name="cifar100",
        image_size=32,
        description="CIFAR-100 in its original binary form",
        load=_cifar100,
        fingerprint=fetched_by_torchvision("cifar100"),
    ),
)
