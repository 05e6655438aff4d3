"""A folder as a data source sees it: its images, told by what they hold, and what else there is."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from pipeline.core.errors import readable_file
from pipeline.core.printable import printable
from pipeline.data.image_kinds import HEAD, claims_to_be_image, looks_like_image
from pipeline.data.sources.listing import Folder, list_folder

LONGEST_SUFFIX = 12
"""Characters; a longer one is the end of a name with a dot in it."""
WITHOUT_SUFFIX = "without a suffix"


@dataclass(eq=False)
class ImageTree:
    """The images in a folder and below it."""

    path: Path
    images: list[str]
    """Names of those in the folder itself."""
    folders: list[ImageTree]
    passed_over: Counter[str]
    """From a suffix or a reason to how many entries of the folder itself are no images."""
    count: int
    """Images in it and below."""

    @property
    def name(self) -> str:
        """Return its own name in the composed form of Unicode: systems store 'é' as one character or as two."""
        return unicodedata.normalize("NFC", self.path.name)

    @property
    def holding(self) -> list[ImageTree]:
        """Return the folders in it that hold images, themselves or below."""
        return [folder for folder in self.folders if folder.count]

    @property
    def is_loose(self) -> bool:
        """Whether it holds images and no classes: in itself, or in a single folder around them."""
        inner = self.holding
        return not inner if self.images or len(inner) != 1 else inner[0].is_loose

    def walk(self) -> Iterator[ImageTree]:
        """Yield this folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def files(self) -> list[Path]:
        """Return the images in it and below, sorted."""
        return sorted(tree.path / name for tree in self.walk() for name in tree.images)

    def all_passed_over(self) -> Counter[str]:
        """Return what is passed over in it and below."""
        total: Counter[str] = Counter()
        for tree in self.walk():
            total.update(tree.passed_over)
        return total


def read_tree(root: Path) -> ImageTree:
    """Return the images below ``root``; only of files that are not called like images the first bytes are read.

    Raises:
        UserError: a folder or a file cannot be read.
    """
    return tree_of(list_folder(root))


def tree_of(folder: Folder) -> ImageTree:
    """Return the images of the listed ``folder``; the rest is as for ``read_tree``."""
    folders = [tree_of(inner) for inner in folder.folders]
    images: list[str] = []
    passed_over = Counter(folder.passed_over)
    for name in folder.files:
        if claims_to_be_image(name) or looks_like_image(name, _head(folder.path / name)):
            images.append(name)
        else:
            passed_over[suffix_of(name)] += 1
    return ImageTree(folder.path, images, folders, passed_over, len(images) + sum(inner.count for inner in folders))


def _head(file: Path) -> bytes:
    with readable_file(file), file.open("rb") as opened:
        return opened.read(HEAD)


def suffix_of(name: str) -> str:
    """Return what a file called ``name`` is counted as where it is no image."""
    suffix = PurePath(name).suffix.lower()
    return printable(suffix) if 1 < len(suffix) <= LONGEST_SUFFIX else WITHOUT_SUFFIX
