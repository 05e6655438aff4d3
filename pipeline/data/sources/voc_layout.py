"""Which XML files of a folder are a Pascal VOC data set's, and where their images lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.data.sources.fingerprints import checked_files
from pipeline.data.sources.image_tree import ImageTree
from pipeline.data.sources.listing import Folder
from pipeline.data.sources.other_format import other_format
from pipeline.data.sources.shown_names import ShownNames
from pipeline.data.sources.split_names import split_role

Show = Callable[[Path], str]
"""From a path to what the user calls it."""

EXPECTED = (
    "expected are Annotations/*.xml beside JPEGImages, with the splits in ImageSets/Main/train.txt and val.txt, or "
    "train/*.xml and test/*.xml beside their images"
)
XML = ".xml"
ANNOTATIONS = "annotations"
IMAGES = ("JPEGImages", "images", "Images")
"""Folders of images beside that of the annotations."""


@dataclass
class VocLayout:
    """The files of annotations of each split."""

    splits: dict[str, list[Path]]
    """From ``train``, ``calib`` and ``test`` to XML files; the first always."""
    lists: list[Path] = field(default_factory=list)
    """The files that name them."""


def voc_fingerprint(root: Path, download: bool) -> str:  # noqa: ARG001, FBT001  (signature of a Fingerprint)
    """Return a text that changes with the images or annotations below ``root``.

    Raises:
        UserError: as ``checked_files``; or the annotations of a directory cannot be found.
    """

    def check(top: Folder) -> None:
        find_voc(top, ShownNames(shown=root, root=root))

    return checked_files(root, check)


def find_voc(top: Folder, show: Show) -> VocLayout:
    """Return the annotations of each split below ``top``.

    Splits are those of the lists in ``ImageSets/Main``, else folders that are called so; else all is train's.

    Raises:
        UserError: there are none, or more than one way to understand the folders; or a list names what is not there.
    """
    folders = {
        folder.path: sorted(folder.path / name for name in folder.files if name.lower().endswith(XML))
        for folder in top.walk()
    }
    folders = {path: files for path, files in folders.items() if files}
    if not folders:
        raise UserError(f"{show(top.path)}: holds no {XML} file; {EXPECTED}{other_format(top, 'voc')}")
    if len(folders) == 1:
        ((path, files),) = folders.items()
        lists = _lists(top, path)
        return _listed(lists, files, show) if lists else VocLayout({"train": files})
    by_role: dict[str, Path] = {}
    for path in folders:
        role = _role(path)
        if role is None or role in by_role:
            other = by_role.get(role or "") or next(known for known in folders if known != path)
            first, second = sorted([other, path])
            raise UserError(
                f"{show(top.path)}: {show(first)} and {show(second)} hold annotations and are not called like "
                f"different splits; give the folder of one data set; {EXPECTED}"
            )
        by_role[role] = path
    if "train" not in by_role:
        names = ", ".join(show(path) for path in by_role.values())
        raise UserError(f"{show(top.path)}: has {names} and no train; {EXPECTED}")
    return VocLayout({split: folders[path] for split, path in as_splits(by_role).items()})


def as_splits(by_role: dict[str, Path]) -> dict[str, Path]:
    """Return what is ``train``, ``test`` and ``val`` by the splits that they are: val calibrates beside a test."""
    splits = {"train": "train", "test": "test", "val": "calib" if "test" in by_role else "test"}
    return {splits[role]: path for role, path in by_role.items()}


def _role(folder: Path) -> str | None:
    return split_role(folder.name) or split_role(folder.parent.name)


def _lists(top: Folder, annotations: Path) -> dict[str, Path]:
    """Return the lists of splits that lie beside ``annotations``, by their names."""
    main = annotations.parent / "ImageSets" / "Main"
    found = {
        Path(name).stem.lower(): folder.path / name
        for folder in top.walk()
        if folder.path == main
        for name in folder.files
        if name.lower().endswith(".txt") and (main / name).stat().st_size
    }
    roles: tuple[str, ...] = ("train", "val", "test")
    lists = {role: found[role] for role in roles if role in found}
    if "train" not in lists and "trainval" in found:
        lists = {"train": found["trainval"]} | {role: lists[role] for role in ("test",) if role in lists}
    return lists


def _listed(lists: dict[str, Path], files: list[Path], show: Show) -> VocLayout:
    if "train" not in lists:
        names = ", ".join(map(show, lists.values()))
        raise UserError(f"{names}: there is neither train.txt nor trainval.txt beside it; {EXPECTED}")
    known = {file.stem: file for file in files}
    splits = {split: _named(path, known, show) for split, path in as_splits(lists).items()}
    return VocLayout(splits, [*lists.values()])


def _named(path: Path, known: dict[str, Path], show: Show) -> list[Path]:
    """Return the files that the lines of the list ``path`` name: alone, or before the number of a class list."""
    with readable_file(show(path)):
        data = path.read_bytes()
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"{show(path)}: is no text in UTF-8 ({printable(error)})") from error
    found = {line: known.get(line) or known.get(line.split()[0]) for line in lines}
    missing = [line for line, file in found.items() if file is None]
    if missing:
        raise UserError(
            f"{show(path)}: {len(missing)} of the {len(found)} images that it names have no {XML} file, the first is "
            f"'{printable(missing[0])}'; add them, or take them out of the list"
        )
    return [file for file in found.values() if file is not None]


class VocImages:
    """Find the image of a file of annotations."""

    def __init__(self, tree: ImageTree) -> None:
        self._by_stem: dict[Path, dict[str, list[str]]] = {}
        for folder in tree.walk():
            stems: dict[str, list[str]] = defaultdict(list)
            for name in folder.images:
                stems[Path(name).stem].append(name)
            self._by_stem[folder.path] = stems

    def of(self, annotations: Path, filename: str | None) -> Path | None:
        """Return the image of ``annotations``: of the same name, else of ``filename``; None: there is none.

        It is looked for beside ``annotations``, in a folder of images beside that folder, then in the folder around.
        Of several images of the same name, ``filename`` says which.
        """
        around = annotations.parent.parent
        named = PurePosixPath((filename or "").replace("\\", "/")).name
        folders = [annotations.parent, *(around / name for name in IMAGES), around]
        for stem in (annotations.stem, PurePosixPath(named).stem):
            for folder in folders:
                names = self._by_stem.get(folder, {}).get(stem, [])
                if names:
                    return folder / (named if named in names else names[0])
        return None
