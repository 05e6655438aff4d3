"""Which JSON files of a folder are a COCO data set's, and where the images lie that they name."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pipeline.core.errors import UserError
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
    "expected are annotations/instances_train*.json and instances_val*.json with folders of images, "
    "train/_annotations.coco.json and valid/_annotations.coco.json beside the images, or one .json for all images; "
    "prepare_data.annotations names files that are called otherwise"
)
ROBOFLOW = "_annotations.coco"
INSTANCES = "instances"
"""In the name of the file that has boxes, where others beside it have captions or keypoints of the same images."""
NAMED = 5
"""Files that a message names."""


NOTHING: Mapping[str, str] = {}


def coco_fingerprint(root: Path, download: bool, annotations: Mapping[str, str] = NOTHING) -> str:  # noqa: ARG001, FBT001  (signature of a Fingerprint)
    """Return a text that changes with the images or annotations below ``root``.

    Raises:
        UserError: as ``checked_files``; or the annotations of a directory cannot be found.
    """

    def check(top: Folder) -> None:
        find_annotations(top, annotations, ShownNames(shown=root, root=root))

    return checked_files(root, check)


def find_annotations(top: Folder, given: Mapping[str, str], show: Show) -> dict[str, Path]:
    """Return the JSON files of the splits ``train``, ``calib`` and ``test``; the first always.

    Args:
        given: the user's own choice, from a split to a path below ``top``; empty: by what the files are called.

    Raises:
        UserError: a file is not there, or there is more than one way to understand their names, or none.
    """
    found = {folder.path / name for folder in top.walk() for name in folder.files}
    if given:
        return {split: _given(split, top.path / path, found, show) for split, path in given.items()}
    files = sorted(file for file in found if file.suffix.lower() == ".json")
    files = [file for file in files if _is_of_boxes(file)] or files
    if len(files) == 1:
        return {"train": files[0]}
    by_role: dict[str, Path] = {}
    for file in files:
        role = role_of(file)
        if role in by_role:
            raise UserError(
                f"{show(by_role[role])}: {show(file)} beside it could be the {role} split as well; name those to read "
                "in prepare_data.annotations"
            )
        if role is not None:
            by_role[role] = file
    if "train" not in by_role:
        names = ", ".join(show(file) for file in files[:NAMED]) + (", ..." if len(files) > NAMED else "")
        what = f"{len(files)} .json file(s), none of them train's ({names})" if files else "no .json file"
        raise UserError(f"{show(top.path)}: holds {what}; {EXPECTED}{'' if files else other_format(top, 'coco')}")
    splits = {"train": "train", "test": "test", "val": "calib" if "test" in by_role else "test"}
    return {splits[role]: file for role, file in by_role.items()}


def role_of(file: Path) -> str | None:
    """Return the split that ``file`` is called like, or the folder that it lies in."""
    return split_role(file.stem) or split_role(file.parent.name)


def _is_of_boxes(file: Path) -> bool:
    name = file.stem.lower()
    return INSTANCES in name or name.startswith(ROBOFLOW)


def _given(split: str, file: Path, found: set[Path], show: Show) -> Path:
    if file not in found:
        raise UserError(f"prepare_data.annotations.{split}: there is no file {show(file)}; paths count from root")
    return file


class ImageIndex:
    """The images below a folder by their paths, in the composed form of Unicode."""

    def __init__(self, top: ImageTree) -> None:
        self.top = top.path
        self.folders = [tree.path for tree in top.walk() if tree.count]
        self._files = {_composed(file.relative_to(top.path).as_posix()): file for file in top.files()}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in self._files:
            self._by_name[path.rpartition("/")[2]].append(path)

    def counts(self, names: Sequence[PurePosixPath]) -> Counter[Path]:
        """Return how many images called ``names`` there are below each folder, of those that have any."""
        found: Counter[str] = Counter()
        for name in names:
            wanted = f"/{_composed(name.as_posix())}"
            for path in self._by_name.get(wanted.rpartition("/")[2], ()):
                if f"/{path}".endswith(wanted):
                    found[path[: max(0, len(path) - len(wanted))]] += 1
        return Counter({self.top / folder: count for folder, count in found.items()})

    def below(self, folder: Path, names: Sequence[PurePosixPath]) -> Iterator[Path | None]:
        """Yield the image of each of ``names`` below ``folder``, None where there is none."""
        place = PurePosixPath(folder.relative_to(self.top).as_posix())
        for name in names:
            yield self._files.get(_composed((place / name).as_posix()))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def locate(names: Sequence[PurePosixPath], annotations: Path, index: ImageIndex, show: Show) -> list[Path]:
    """Return the image files that ``annotations`` calls ``names``.

    They lie below one folder: that of the JSON file, one that it is called after, one of its split's name, or any
    other; the first of these that has some of them must have all.

    Raises:
        UserError: an image is missing, or several folders have all of them.
    """
    counts = index.counts(names)
    for folders in _by_nearness(annotations, index):
        best = max(folders, key=lambda folder: counts[folder], default=None)
        if best is None or not counts[best]:
            continue
        found = list(index.below(best, names))
        missing = [name for name, file in zip(names, found, strict=True) if file is None]
        if missing:
            raise UserError(
                f"{show(annotations)}: {len(missing)} of the {len(names)} images that it names are not in "
                f"{show(best)}, or are no images, the first is '{printable(missing[0])}'; fetch them, or take them out "
                "of the file"
            )
        others = [folder for folder in folders if folder != best and counts[folder] == counts[best]]
        if others:
            raise UserError(
                f"{show(annotations)}: its images could be those in {show(best)} or in {show(others[0])}; call one of "
                f"the folders '{printable(annotations.stem)}', or move the file beside its images"
            )
        return [file for file in found if file is not None]
    raise UserError(
        f"{show(annotations)}: none of the {len(names)} images that it names is below {show(index.top)}, the first is "
        f"'{printable(names[0])}'; put them there, in a folder of the split's name"
    )


def _by_nearness(annotations: Path, index: ImageIndex) -> Iterator[list[Path]]:
    """Yield the folders in which the images of ``annotations`` may lie, in groups, the likeliest first."""
    role, stem = role_of(annotations), annotations.stem.lower()
    called = [folder for folder in index.folders if folder != index.top and stem.endswith(folder.name.lower())]
    of_split = [folder for folder in index.folders if role is not None and split_role(folder.name) == role]
    of_others = [folder for folder in index.folders if split_role(folder.name) not in (role, None)]
    seen: set[Path] = set(of_others if role is not None else ())
    for group in ([annotations.parent], called, of_split, index.folders):
        folders = [folder for folder in dict.fromkeys(group) if folder not in seen]
        seen.update(folders)
        yield folders
