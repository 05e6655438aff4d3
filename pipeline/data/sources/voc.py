"""Images with the boxes of objects in XML files, as Pascal VOC has them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.data.sources.annotated import NO_SIZE, Annotated, Box, Remarks, detection_source, image_set, passed_over
from pipeline.data.sources.archive import opened_folder
from pipeline.data.sources.frames import Size
from pipeline.data.sources.image_tree import tree_of
from pipeline.data.sources.listing import list_folder
from pipeline.data.sources.odd_values import number_in, shortened
from pipeline.data.sources.shown_names import ShownNames
from pipeline.data.sources.voc_layout import VocImages, find_voc
from pipeline.data.splits import ImageSource

CORNERS = ("xmin", "ymin", "xmax", "ymax")
NAMED = 5
"""Classes that a message names."""


@contextlib.contextmanager
def open_voc(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001, FBT001  (signature of Open)
    """Yield the images below ``root``, a directory or an archive, with the objects that XML files have of them.

    Corners of boxes are pixels, counted from 1, that belong to the object. What is difficult is neither learned nor
    missed. Classes are the sorted names of the training objects. ``find_voc`` says what the folders may look like.

    Raises:
        UserError: files cannot be understood, one is not as Pascal VOC has them, an image is missing, or training lacks
            a class; names the file.
    """
    assert root is not None
    with opened_folder(root) as top:
        names = ShownNames(shown=root, root=top)
        listed = list_folder(top)
        layout = find_voc(listed, names)
        tree = tree_of(listed)
        images = VocImages(tree)
        found = {
            split: [_VocFile.read(file, names, images) for file in files] for split, files in layout.splits.items()
        }
        class_names = tuple(sorted({name for file in found["train"] for name, _ in file.things}))
        splits = {}
        for split, files in found.items():
            remarks = Remarks()
            splits[split] = image_set([file.annotated(class_names, remarks) for file in files], names, remarks)
            remarks.log(split)
        read = [file for files in layout.splits.values() for file in files] + layout.lists
        yield detection_source(splits, class_names, None, passed_over(tree, splits, read))


class _Builder(ET.TreeBuilder):
    """Build the tree of a file that may be anybody's."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:  # noqa: ARG002  (as it is called)
        """Refuse what may hold entities, which grow without end or read other files."""
        raise UserError("has a DOCTYPE, which files of annotations do not need; remove it")


@dataclass(frozen=True)
class _VocFile:
    """The content of a file of annotations."""

    where: str
    image: Path
    size: Size | None
    things: list[tuple[str, Box]]
    """The class of each object, and its box, whose category is not known yet."""

    @classmethod
    def read(cls, file: Path, names: ShownNames, images: VocImages) -> "_VocFile":
        """Return what ``file`` says.

        Raises:
            UserError: it is no such file, or its image is missing.
        """
        where = names(file)
        root = _root(file, where)
        filename = root.findtext("filename")
        image = images.of(file, filename)
        if image is None:
            raise UserError(
                f"{where}: there is no image of its name, nor '{printable(filename)}', beside it or in JPEGImages; "
                "fetch it, or remove the file"
            )
        things = [_thing(entry, where, number) for number, entry in enumerate(root.findall("object"), 1)]
        return cls(where, image, _size(root, where), things)

    def annotated(self, class_names: tuple[str, ...], remarks: Remarks) -> Annotated:
        """Return the image with its objects.

        Raises:
            UserError: a class is not among ``class_names``.
        """
        if self.size is None:
            remarks.add(NO_SIZE, self.where)
        boxes = []
        for name, box in self.things:
            if name not in class_names:
                known = ", ".join(map(printable, class_names[:NAMED])) + (", ..." if len(class_names) > NAMED else "")
                raise UserError(
                    f"{self.where}: class '{printable(name)}' is not among the {len(class_names)} training classes "
                    f"({known}); add it to train or remove it"
                )
            boxes.append(box._replace(category=class_names.index(name)))
        return Annotated(self.image, self.where, self.size, boxes)


def _root(file: Path, where: str) -> ET.Element:
    parser = ET.XMLParser(target=_Builder())  # noqa: S314  (without a DOCTYPE there are no entities)
    with readable_file(where):
        data = file.read_bytes()
    try:
        root = ET.fromstring(data, parser)  # noqa: S314
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{where}: is no XML ({printable(error)}); export it again") from error
    if root.tag != "annotation":
        raise UserError(
            f"{where}: holds <{printable(root.tag)}>, a file of Pascal VOC holds <annotation>; export it again, or "
            "move it"
        )
    return root


def _size(root: ET.Element, where: str) -> Size | None:
    found = [root.findtext(f"size/{key}") for key in ("height", "width")]
    if all(text is None or text.strip() in ("", "0") for text in found):
        return None
    height, width = (number_in(text, f"{where}: size") for text in found)
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise UserError(f"{where}: size is {width:g} x {height:g}, expected pixels, whole numbers from 1 on")
    return int(height), int(width)


def _thing(entry: ET.Element, where: str, number: int) -> tuple[str, Box]:
    own = f"object no. {number}"
    place = f"{where}: {own}"
    name = (entry.findtext("name") or "").strip()
    if not name or not name.isprintable():
        raise UserError(f"{place}: name is {shortened(name)}, expected the name of a class")
    difficult = (entry.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise UserError(f"{place}: difficult is {shortened(difficult)}, expected 0 or 1")
    box = entry.find("bndbox")
    if box is None:
        raise UserError(f"{place}: has no bndbox; export it with boxes")
    left, top, right, bottom = (number_in(box.findtext(key), f"{place}: {key}") for key in CORNERS)
    if right < left - 1 or bottom < top - 1:
        raise UserError(f"{place}: ends at {right:g}, {bottom:g}, before it begins at {left:g}, {top:g}; repair it")
    corners = (left - 1, top - 1, right, bottom)
    return name, Box(corners, category=-1, ignored=difficult == "1", where=own)
