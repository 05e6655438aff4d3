"""The table of data sources: where images come from.

To add one: a file of this folder with a function that opens it, and an entry here. Nothing heavy is imported before an
entry is loaded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.core.table import Entry, Table
from pipeline.data.sources.coco_layout import coco_fingerprint
from pipeline.data.sources.fingerprints import directory_or_archive, fetched_by_torchvision
from pipeline.data.sources.voc_layout import voc_fingerprint
from pipeline.data.sources.yolo_layout import yolo_fingerprint

if TYPE_CHECKING:
    from pipeline.data.sources.settings import PrepareData
    from pipeline.data.splits import ImageSource

    Open = Callable[..., contextlib.AbstractContextManager[ImageSource]]
    """From the root and whether the source may download to the images, for as long as the block lasts.

    A source that takes annotations has a third argument: from a split to the file below the root that the user names.
    """

Fingerprint = Callable[..., str]
"""From the same to a text that changes with the user's images.

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
    takes_annotations: bool = False
    """Whether the user may name its files of annotations (``prepare_data.annotations``)."""
    published: bool = False
    """Whether the user's files are always those of one published data set."""
    carried_by: str | None = None
    """The Python distribution that brings the images along, so that its version says which they are."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        if self.fingerprint is not None and not callable(self.fingerprint):
            yield f"has the fingerprint {self.fingerprint!r}; give a function, or None"

    @property
    def needs_root(self) -> bool:
        """Whether the user says where the images are."""
        return self.fingerprint is not None

    @property
    def is_one_set(self) -> bool:
        """Whether its images are always the same, so that a package can be called after it."""
        return self.published or not self.needs_root

    def opened(self, settings: PrepareData) -> contextlib.AbstractContextManager[ImageSource]:
        """Return the source as ``settings`` want it, open for as long as the block lasts."""
        root = Path(settings.root) if settings.root else None
        source: contextlib.AbstractContextManager[ImageSource]
        source = self._with_annotations(self.load(), settings)(root, settings.download)
        return source

    def state(self, settings: PrepareData) -> str:
        """Return a text that changes with the user's images; the source's name where it comes with the pipeline."""
        if self.fingerprint is None or settings.root is None:
            return self.name
        return str(self._with_annotations(self.fingerprint, settings)(Path(settings.root), settings.download))

    def _with_annotations(self, function: Callable[..., Any], settings: PrepareData) -> Callable[..., Any]:
        named = settings.annotations.named()
        return functools.partial(function, annotations=named) if named else function


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


def _digit_scenes() -> Open:
    from pipeline.data.sources.digit_scenes import open_digit_scenes

    return open_digit_scenes


def _coco() -> Open:
    from pipeline.data.sources.coco import open_coco

    return open_coco


def _yolo() -> Open:
    from pipeline.data.sources.yolo import open_yolo

    return open_yolo


def _voc() -> Open:
    from pipeline.data.sources.voc import open_voc

    return open_voc


SOURCES = Table(
    "data source",
    SourceEntry(
        name="digits",
        description="8 x 8 scans of handwritten digits, embedded",
        load=_digits,
        image_size=8,
        carried_by="scikit-learn",
    ),
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
        published=True,
    ),
    SourceEntry(
        name="cifar100",
        image_size=32,
        description="CIFAR-100 in its original binary form",
        load=_cifar100,
        fingerprint=fetched_by_torchvision("cifar100"),
        published=True,
    ),
    SourceEntry(
        name="digit_scenes",
        description="64 x 64 scenes of handwritten digits with their boxes, embedded",
        load=_digit_scenes,
        image_size=64,
        task="detection",
        carried_by="scikit-learn",
    ),
    SourceEntry(
        name="coco",
        description="objects in boxes: COCO's JSON files below root, as most tools export them",
        load=_coco,
        fingerprint=coco_fingerprint,
        has_files=True,
        task="detection",
        takes_annotations=True,
    ),
    SourceEntry(
        name="yolo",
        description="objects in boxes: YOLO's files of labels; root holds their data.yaml",
        load=_yolo,
        fingerprint=yolo_fingerprint,
        has_files=True,
        task="detection",
    ),
    SourceEntry(
        name="voc",
        description="objects in boxes: Pascal VOC's XML files; root holds Annotations and JPEGImages",
        load=_voc,
        fingerprint=voc_fingerprint,
        has_files=True,
        task="detection",
    ),
)
