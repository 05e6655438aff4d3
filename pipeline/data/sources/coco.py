"""Images with the boxes of objects, in COCO's format."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.printable import printable
from pipeline.data.sources.annotated import NO_SIZE, Annotated, Remarks, detection_source, image_set, passed_over
from pipeline.data.sources.archive import opened_folder
from pipeline.data.sources.coco_json import CocoFile, coco_boxes, read_coco
from pipeline.data.sources.coco_layout import NOTHING, ImageIndex, find_annotations, locate
from pipeline.data.sources.image_tree import tree_of
from pipeline.data.sources.listing import list_folder
from pipeline.data.sources.shown_names import ShownNames
from pipeline.data.splits import ImageSet, ImageSource

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_coco(
    root: Path | None,
    download: bool,  # noqa: ARG001, FBT001  (signature of Open)
    annotations: Mapping[str, str] = NOTHING,
) -> Iterator[ImageSource]:
    """Yield the images below ``root``, a directory or an archive, with the objects that COCO files have of them.

    Classes are the categories in the order of their ids. An unused category that is called like another one, or like
    what others are parts of, is left out. See ``find_annotations`` for the files and ``locate`` for the images.

    Args:
        annotations: from a split to its file below ``root``; empty: by what the files are called.

    Raises:
        UserError: files cannot be understood, one is not as COCO has them, images are missing, or splits have
            different categories; names the file and the entry.
    """
    assert root is not None
    with opened_folder(root) as top:
        names = ShownNames(shown=root, root=top)
        listed = list_folder(top)
        files = find_annotations(listed, annotations, names)
        tree = tree_of(listed)
        index = ImageIndex(tree)
        contents = {split: read_coco(file, names) for split, file in files.items()}
        categories = _classes(list(contents.values()))
        classes = {own: position for position, own in enumerate(categories)}
        splits = {
            split: _image_set(
                split,
                content,
                locate([image.name for image in content.images], files[split], index, names),
                classes,
                names,
            )
            for split, content in contents.items()
        }
        others = passed_over(tree, splits, list(files.values()))
        yield detection_source(splits, tuple(categories.values()), tuple(categories), others)


def _image_set(
    split: str, content: CocoFile, files: list[Path], classes: Mapping[int, int], names: ShownNames
) -> ImageSet:
    remarks, ids = Remarks(), set[object]()
    images = []
    for image, file in zip(content.images, files, strict=True):
        if image.size is None:
            remarks.add(NO_SIZE, image.where)
        images.append(Annotated(file, image.where, image.size, list(coco_boxes(image, classes, ids, remarks))))
    found = image_set(images, names, remarks)
    remarks.log(split)
    return found


def _classes(contents: list[CocoFile]) -> dict[int, str]:
    """Return the names of the categories by their ids, ascending, without those that are placeholders.

    Raises:
        UserError: files have different categories, or two that are used have the same name.
    """
    first, *others = contents
    known = {own: category.name for own, category in first.categories.items()}
    for other in others:
        found = {own: category.name for own, category in other.categories.items()}
        if found != known:
            different = sorted(own for own in {*known, *found} if known.get(own) != found.get(own))[0]
            raise UserError(
                f"{first.where} and {other.where} have different categories: {different} is "
                f"{_named(known.get(different))} and {_named(found.get(different))}; give all splits the same"
            )
    used = frozenset[int]().union(*(content.used for content in contents))
    counts = Counter(known.values())
    above = {
        category.supercategory
        for content in contents
        for category in content.categories.values()
        if category.supercategory != category.name
    }
    for own, name in list(known.items()):
        if own not in used and len(known) > 1 and (counts[name] > 1 or name in above):
            logger.warning(
                "%s: category %d, '%s', has no object and stands for others; it is left out",
                first.where,
                own,
                printable(name),
            )
            del known[own]
            counts[name] -= 1
    for name, count in counts.items():
        if count > 1:
            same = [own for own, other in known.items() if other == name]
            raise UserError(
                f"{first.where}: the categories {', '.join(map(str, same))} are all called '{printable(name)}'; merge "
                "them, or rename all but one"
            )
    return known


def _named(name: str | None) -> str:
    return "not there" if name is None else f"'{printable(name)}'"
