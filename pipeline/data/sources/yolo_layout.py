"""What the data.yaml of a YOLO data set says: the names of the classes, and where the images of each split lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.data.sources.fingerprints import checked_files
from pipeline.data.sources.listing import Folder
from pipeline.data.sources.odd_values import shortened
from pipeline.data.sources.other_format import other_format
from pipeline.data.sources.shown_names import ShownNames

Show = Callable[[Path], str]
"""From a path to what the user calls it."""

EXPECTED = (
    "expected is a data.yaml with names, train and val, beside folders images/train and labels/train, or train/images "
    "and train/labels"
)
USUAL = frozenset({"data.yaml", "data.yml", "dataset.yaml", "dataset.yml"})
LISTS = ".txt"
"""End of the name of a file that lists images."""
LONGEST_NUMBER = 9
"""Digits of the number of a class."""
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class YoloSet:
    """A YOLO data set."""

    where: str
    """What messages call its data.yaml."""
    file: Path
    """That data.yaml."""
    names: dict[int, str]
    """The classes by their numbers, ascending."""
    has_keypoints: bool
    """Whether points of the body follow each box."""
    splits: dict[str, list[Path]]
    """From ``train``, ``calib`` and ``test`` to folders of images and files that list some; the first always."""
    base: Path
    """The folder that data.yaml lies in."""


def yolo_fingerprint(root: Path, download: bool) -> str:  # noqa: ARG001, FBT001  (signature of a Fingerprint)
    """Return a text that changes with the images or labels below ``root``.

    Raises:
        UserError: as ``checked_files``; or a directory's data.yaml is missing or wrong.
    """

    def check(top: Folder) -> None:
        find_yolo(top, ShownNames(shown=root, root=root))

    return checked_files(root, check)


def find_yolo(top: Folder, show: Show) -> YoloSet:
    """Return what the data.yaml below ``top`` says.

    Raises:
        UserError: there is none, or several; or it lacks what it needs, or names what is not there.
    """
    file = _description(top, show)
    where = show(file)
    content = _loaded(file, where)
    folders = list(top.walk())
    places = {folder.path for folder in folders} | {folder.path / name for folder in folders for name in folder.files}
    known = _Places(top.path, file.parent, content.get("path"), places)
    by_role = {role: _split(content, role, known, where) for role in ("train", "val", "test") if content.get(role)}
    if "train" not in by_role:
        raise UserError(f"{where}: does not say where the images of train are; {EXPECTED}")
    roles = {"train": "train", "test": "test", "val": "calib" if "test" in by_role else "test"}
    splits = {roles[role]: paths for role, paths in by_role.items()}
    return YoloSet(where, file, _names(content, where), "kpt_shape" in content, splits, file.parent)


def _description(top: Folder, show: Show) -> Path:
    files = [folder.path / name for folder in top.walk() for name in folder.files]
    found = sorted(file for file in files if file.suffix.lower() in {".yaml", ".yml"})
    found = [file for file in found if file.name.lower() in USUAL] or found
    if not found:
        raise UserError(f"{show(top.path)}: holds no .yaml file; {EXPECTED}{other_format(top, 'yolo')}")
    if len(found) > 1:
        raise UserError(
            f"{show(top.path)}: {show(found[0])} and {show(found[1])} could both describe the data; remove one "
            "of them, or give the folder of one data set"
        )
    return found[0]


def _loaded(file: Path, where: str) -> Mapping[str, Any]:
    """Return the content of ``file``, in which each value is a text as it stands there: a class may be called no."""
    with readable_file(where):
        data = file.read_bytes()
    try:
        content = YAML(typ="base", pure=True).load(data.decode("utf-8-sig"))
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no YAML in UTF-8 ({printable(' '.join(str(error).split()))})") from error
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{where}: has no names of classes; {EXPECTED}")
    return content


def _names(content: Mapping[str, Any], where: str) -> dict[int, str]:
    given = content["names"]
    if isinstance(given, list):
        given = {str(number): name for number, name in enumerate(given)}
    if not isinstance(given, dict) or not given:
        raise UserError(f"{where}: names is {shortened(given)}, expected a list of classes, or numbers with classes")
    names: dict[int, str] = {}
    for key, name in given.items():
        is_number = isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) <= LONGEST_NUMBER
        if not is_number or not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UserError(f"{where}: names has {shortened(key)}: {shortened(name)}, expected a number and a class")
        names[int(key)] = name
    twice = [name for name in names.values() if [*names.values()].count(name) > 1]
    if twice:
        raise UserError(f"{where}: names has '{printable(twice[0])}' twice; merge the classes, or rename one")
    count = content.get("nc")
    if count and count != str(len(names)):
        raise UserError(f"{where}: nc is {shortened(count)}, but names has {len(names)} classes; correct one of them")
    return dict(sorted(names.items()))


@dataclass(frozen=True)
class _Places:
    """Where the paths of a data.yaml lead."""

    top: Path
    base: Path
    path: object
    """What data.yaml says that its paths count from; often a folder of another machine."""
    known: set[Path]
    """All folders and files below ``top``."""

    def find(self, text: str) -> Path | None:
        """Return what ``text`` leads to, None where there is nothing below ``top``."""
        return next((place for place in self.tried(text) if place in self.known), None)

    def tried(self, text: str) -> Iterator[Path]:
        """Yield where ``text`` may lead, the likeliest first."""
        plain = text.replace("\\", "/")
        starts = [self.base / str(self.path), self.base] if self.path else [self.base]
        for start in starts:
            yield self._below(start / plain)
        while plain.startswith("../"):  # as it counts from a folder beside it, in some tools
            plain = plain.removeprefix("../")
            yield self._below(self.base / plain)

    def _below(self, place: Path) -> Path:
        """Return ``place`` without detours, as seen from ``top`` where it lies there."""
        place = Path(os.path.normpath(place))
        for top in (self.top.absolute(), self.top.resolve()):
            if place.is_absolute() and place.is_relative_to(top):
                return self.top / place.relative_to(top)
        return place


def _split(content: Mapping[str, Any], role: str, known: _Places, where: str) -> list[Path]:
    given = content[role]
    texts: Sequence[Any] = given if isinstance(given, list) else [given]
    found = []
    for text in texts:
        place = known.find(text) if isinstance(text, str) else None
        if place is None:
            raise UserError(
                f"{where}: {role} is {shortened(text)}, which is not below {printable(known.top)}; write it as seen "
                "from data.yaml, e.g. images/train"
            )
        found.append(place)
    return found


def label_of(image: Path, top: Path) -> Path:
    """Return where the labels of ``image`` below ``top`` are: in labels where it is in images, else beside it."""
    parts = list(image.relative_to(top).with_suffix(".txt").parts)
    folders = parts[:-1]
    if IMAGES in folders:
        parts[len(folders) - 1 - folders[::-1].index(IMAGES)] = LABELS
    return top.joinpath(*parts)


def listed_images(file: Path, base: Path, top: Path, images: set[Path], where: str) -> list[Path]:
    """Return the images that the lines of ``file`` name, as seen from it, from ``base``, or from anywhere.

    Raises:
        UserError: one is not among ``images``.
    """
    with readable_file(where):
        data = file.read_bytes()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except ValueError as error:
        raise UserError(f"{where}: is no text in UTF-8 ({printable(error)})") from error
    starts = [_Places(top, start, None, images) for start in (file.parent, base)]
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        image = next((place for place in (start.find(text) for start in starts) if place is not None), None)
        if image is None:
            name = printable(PurePosixPath(text))
            raise UserError(f"{where}: line {number} names '{name}', which is no image below {printable(top)}")
        found.append(image)
    return found
