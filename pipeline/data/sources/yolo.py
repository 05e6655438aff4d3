"""Images with the boxes of objects in text files, as YOLO's tools have them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.data.sources.annotated import Annotated, Box, Remarks, detection_source, image_set, passed_over
from pipeline.data.sources.archive import opened_folder
from pipeline.data.sources.image_tree import ImageTree, tree_of
from pipeline.data.sources.listing import list_folder
from pipeline.data.sources.odd_values import number_in, shortened
from pipeline.data.sources.shown_names import ShownNames
from pipeline.data.sources.yolo_layout import LISTS, YoloSet, find_yolo, label_of, listed_images
from pipeline.data.splits import ImageSource

NO_LABELS = "image(s) without a file of labels are taken to have no objects"
OUTLINE = "outline(s): the box is that of the outline"
KEYPOINTS = "line(s) with points of a body: the box alone is read"
LISTED_TWICE = "image(s) are listed twice and read once"
BOX = 5
"""Numbers of a line with a box: the class, the centre x and y, width and height."""
BEYOND = 0.01
"""By how much a part of the image's width or height may lie outside of 0 to 1, as rounding leaves it."""


@contextlib.contextmanager
def open_yolo(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001, FBT001  (signature of Open)
    """Yield the images below ``root``, a directory or an archive, with the objects that files of labels have of them.

    ``find_yolo`` says what data.yaml may look like. A line is a class and a box in parts of the image as it is shown;
    of an outline the box around it is taken. An image without a file of labels has no objects.

    Raises:
        UserError: data.yaml is missing or wrong, a line is not understood, or no image of a split has labels; names
            the file and the line.
    """
    assert root is not None
    with opened_folder(root) as top:
        names = ShownNames(shown=root, root=top)
        listed = list_folder(top)
        found = find_yolo(listed, names)
        tree = tree_of(listed)
        texts = {folder.path / name for folder in listed.walk() for name in folder.files if name.endswith(".txt")}
        reader = _Reader(found, tree, texts, names)
        splits = {}
        for split, places in found.splits.items():
            remarks = Remarks()
            images = reader.images(split, places, remarks)
            splits[split] = image_set(images, names, remarks, are_parts=True)
            remarks.log(split)
        others = passed_over(tree, splits, [found.file, *reader.read])
        yield detection_source(splits, tuple(found.names.values()), tuple(found.names), others)


class _Reader:
    """Read the labels of images."""

    def __init__(self, found: YoloSet, tree: ImageTree, texts: set[Path], names: ShownNames) -> None:
        self.found = found
        self.tree = tree
        self.texts = texts
        self.names = names
        self.classes = {number: position for position, number in enumerate(found.names)}
        self.files = set(tree.files())
        self.read: set[Path] = set()
        """Files of labels and lists that were read."""

    def images(self, split: str, places: list[Path], remarks: Remarks) -> list[Annotated]:
        """Return the images of ``split``, which lie in ``places`` or are listed there, with their objects.

        Raises:
            UserError: there is none, or none of them has labels; or a line is not understood.
        """
        files = [file for place in places for file in self._files(place)]
        if not files:
            raise UserError(f"{self.found.where}: there are no images in {self.names(places[0])}, which is {split}'s")
        if len(set(files)) < len(files):
            remarks.add(LISTED_TWICE, self.names(places[0]), len(files) - len(set(files)))
        images = [self._image(file, remarks) for file in dict.fromkeys(files)]
        if remarks.counts[NO_LABELS] == len(images):
            raise UserError(
                f"{self.names(places[0])}: none of its {len(images)} images has a file of labels; looked for is e.g. "
                f"{self.names(label_of(images[0].file, self.tree.path))}"
            )
        return images

    def _files(self, place: Path) -> list[Path]:
        if place.suffix.lower() == LISTS:
            self.read.add(place)
            top = self.tree.path
            return listed_images(place, self.found.base, top, self.files, self.names(place))
        return next(iter(tree.files() for tree in self.tree.walk() if tree.path == place), [])

    def _image(self, file: Path, remarks: Remarks) -> Annotated:
        text = label_of(file, self.tree.path)
        if text not in self.texts:
            remarks.add(NO_LABELS, self.names(file))
            return Annotated(file, self.names(file))
        self.read.add(text)
        where = self.names(text)
        with readable_file(where):
            data = text.read_bytes()
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except ValueError as error:
            raise UserError(f"{where}: is no text in UTF-8 ({printable(error)})") from error
        boxes = [
            self._box(line.split(), f"{where}: line {number}", f"line {number}", remarks)
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
        return Annotated(file, where, boxes=boxes)

    def _box(self, words: list[str], where: str, name: str, remarks: Remarks) -> Box:
        number, *values = (number_in(word, where) for word in words)
        if number not in self.classes:
            raise UserError(
                f"{where}: is of class {shortened(words[0])}, which names of {self.found.where} does not have; it has "
                f"{min(self.classes)} to {max(self.classes)}"
            )
        if len(words) > BOX and self.found.has_keypoints:
            remarks.add(KEYPOINTS, where)
            values = values[: BOX - 1]
        if any(not -BEYOND <= value <= 1 + BEYOND for value in values):
            raise UserError(
                f"{where}: has values outside of 0 to 1; a box is a class and its centre x, centre y, width and height "
                "in parts of the image's width and height"
            )
        return Box(self._corners(values, where, remarks), self.classes[int(number)], where=name)

    def _corners(self, values: list[float], where: str, remarks: Remarks) -> tuple[float, float, float, float]:
        if len(values) == BOX - 1:
            x, y, width, height = values
            if width < 0 or height < 0:
                raise UserError(f"{where}: has a negative width or height; repair it")
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        if len(values) < BOX or len(values) % 2:
            raise UserError(
                f"{where}: has {len(values) + 1} numbers; expected are a class and a box (5), or a class and the "
                "points of an outline (7, 9, ...)"
            )
        remarks.add(OUTLINE, where)
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
