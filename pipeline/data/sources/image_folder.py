"""Images in one folder per class, with or without folders for the splits."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError, readable_file
from pipeline.data.image_kinds import claims_to_be_image
from pipeline.data.reading import Fit, Image, read_images
from pipeline.data.sources.archive import opened_folder
from pipeline.data.sources.listing import files_below, is_hidden
from pipeline.data.splits import ImageSet, ImageSource, Indices

logger = logging.getLogger(__name__)


SPLITS = ("train", "test", "val")
LIKE_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval"}


@contextlib.contextmanager
def open_image_folder(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001, FBT001  (Open)
    """Yield the images below ``root``, a directory or an archive, one folder per class.

    Layouts: ``train/<class>/...`` with ``test/<class>/...`` or ``val/<class>/...`` (with both, ``val`` becomes the
    calibration split), or ``<class>/...`` alone, to be split later. A single folder around all of it is stepped into.
    Classes are the sorted names of the training folders. Hidden files and files that are no images are passed over.

    Raises:
        UserError: folders that are neither of these layouts, an empty class, a class that training lacks, or a fault of
            ``opened_folder``; names the place.
    """
    assert root is not None
    with opened_folder(root) as top:
        names = _Names(shown=root, root=top)
        folders = _split_folders(_step_into(top), names)
        class_names = _class_names(folders["train"], names)
        roles = {"train": "train", "test": "test", "val": "calib" if "test" in folders else "test"}
        splits = {
            role: _image_set(folders[name], class_names, names) for name, role in roles.items() if name in folders
        }
        yield ImageSource(class_names, splits)


def _split_folders(root: Path, names: "_Names") -> dict[str, Path]:
    """Return the folder of each split that ``root`` has; ``root`` itself is train where it holds classes."""
    folders = {folder.name: folder for folder in _subfolders(root)}
    if not set(SPLITS) & set(folders):
        alike = [name for name in folders if name.lower() in LIKE_SPLITS]
        if alike:
            raise UserError(f"{names(folders[alike[0]])}: looks like a split; name the splits train, test and val")
        return {"train": root}
    if "train" not in folders:
        raise UserError(f"{names(root)}: has a test or val folder but no train folder")
    others = [name for name in folders if name not in SPLITS]
    if others:
        raise UserError(f"{names(folders[others[0]])}: is no split; beside train only test and val are read, remove it")
    return folders


def _class_names(train: Path, names: "_Names") -> tuple[str, ...]:
    classes = tuple(folder.name for folder in _subfolders(train))
    if len(classes) < 2:
        raise UserError(
            f"{names(train)}: holds {len(classes)} class folder(s); expected one folder of images for each of two or "
            "more classes"
        )
    unreadable = [name for name in classes if not name.isprintable()]
    if unreadable:
        raise UserError(f"{names(train)}: the class name {unreadable[0]!r} is not printable UTF-8; rename the folder")
    return classes


class _Names:
    """Paths as the user knows them, also for files of an unpacked archive."""

    def __init__(self, *, shown: Path, root: Path) -> None:
        self.shown = shown
        self.root = root

    def __call__(self, path: Path) -> str:
        return str(self.shown / self.below(path))

    def below(self, path: Path) -> str:
        """Return the path as seen from the root."""
        return str(path.relative_to(self.root))


def _subfolders(path: Path) -> list[Path]:
    with readable_file(path):
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _step_into(root: Path) -> Path:
    """Return the folder that holds the splits or classes: ``root``, or the only folder in it that has folders."""
    inner = _subfolders(root)
    if len(inner) == 1 and inner[0].name not in SPLITS and _subfolders(inner[0]):
        return _step_into(inner[0])
    return root


def _image_set(folder: Path, class_names: tuple[str, ...], names: _Names) -> ImageSet:
    unknown = [entry.name for entry in _subfolders(folder) if entry.name not in class_names]
    if unknown:
        raise UserError(
            f"{names(folder)}: class {unknown[0]!r} is not among the {len(class_names)} training classes "
            f"({', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''}); add it to train or remove it"
        )
    files: list[Path] = []
    categories: list[int] = []
    for category, name in enumerate(class_names):
        found = _images_of_class(folder / name, names)
        files += found
        categories += [category] * len(found)

    def read(positions: Indices, fit: Fit) -> Iterator[Image | UserError]:
        chosen = [files[position] for position in positions]
        return read_images([names(file) for file in chosen], chosen, fit)

    return ImageSet(np.array(categories, dtype=np.int64), [names.below(file) for file in files], read, files)


def _images_of_class(folder: Path, names: _Names) -> list[Path]:
    entries = files_below(folder)
    images = [path for path in entries if claims_to_be_image(path.name)]
    if not images:
        raise UserError(f"{names(folder)}: the class has no images; add some or remove it")
    if len(images) < len(entries):
        logger.warning("%s: passed over %d file(s) that are no images", names(folder), len(entries) - len(images))
    return images
