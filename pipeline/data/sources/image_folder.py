"""Images in one folder per class, with or without folders for the splits."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.printable import printable
from pipeline.data.reading import Fit, Image, read_images
from pipeline.data.sources.archive import opened_folder
from pipeline.data.sources.image_tree import ImageTree, read_tree
from pipeline.data.sources.layout import ClassFolders, find_layout
from pipeline.data.sources.shown_names import ShownNames
from pipeline.data.splits import ImageSet, ImageSource, Indices

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_image_folder(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001, FBT001  (Open)
    """Yield the images below ``root``, a directory or an archive, one folder per class.

    ``find_layout`` says which folders are splits and classes; with both test and val, val becomes the calibration
    split.
    Classes are the sorted names of the training folders. What is no image is passed over and counted.

    Raises:
        UserError: the folders cannot be understood, an empty class, a class that training lacks, or a fault of
            ``opened_folder``; names the place.
    """
    assert root is not None
    with opened_folder(root) as top:
        names = ShownNames(shown=root, root=top)
        tree = read_tree(top)
        layout = find_layout(tree, names)
        for remark in layout.remarks:
            logger.warning("%s", remark)
        for unused in layout.unused:
            logger.warning(
                "%s: its %d image(s) have no class folders and are not used", names(unused.path), unused.count
            )
        class_names = tuple(layout.splits["train"])
        roles = {"train": "train", "test": "test", "val": "calib" if "test" in layout.splits else "test"}
        splits = {roles[name]: _image_set(classes, class_names, names) for name, classes in layout.splits.items()}
        yield ImageSource(class_names, splits, _passed_over(tree, layout.unused))


def _passed_over(tree: ImageTree, unused: list[ImageTree]) -> Counter[str]:
    total = tree.all_passed_over()
    for folder in unused:
        total[f"images in {printable(folder.name)}, which has no class folders"] = folder.count
    return total


def _image_set(classes: ClassFolders, class_names: tuple[str, ...], names: ShownNames) -> ImageSet:
    files: list[Path] = []
    categories: list[int] = []
    for category, name in enumerate(class_names):
        found = sorted(file for folder in classes.get(name, ()) for file in folder.files())
        files += found
        categories += [category] * len(found)

    def read(positions: Indices, fit: Fit) -> Iterator[Image | UserError]:
        chosen = [files[position] for position in positions]
        return read_images([names(file) for file in chosen], chosen, fit)

    return ImageSet(np.array(categories, dtype=np.int64), [names.below(file) for file in files], read, files)
