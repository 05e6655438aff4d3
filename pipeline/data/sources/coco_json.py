"""What a COCO file says, with every field checked: images, objects and their categories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.data.sources.annotated import Box, Remarks
from pipeline.data.sources.frames import Size
from pipeline.data.sources.odd_values import number, shortened

DUPLICATE_ID = "annotation(s) have an id that another one has, each counts as an object of its own"
NO_BOX = "object(s) have an outline and no box: the box is that of the outline"
LEAST_OUTLINE = 4
"""Numbers of an outline that has an extent: two points."""


@dataclass(frozen=True)
class Category:
    """A category, before it is a class."""

    name: str
    supercategory: str


@dataclass(frozen=True)
class CocoImage:
    """An image as the file has it."""

    where: str
    """What messages call its entry."""
    name: PurePosixPath
    """Its file, below a folder that the file does not say."""
    size: Size | None
    annotations: list[dict[str, Any]]


@dataclass(frozen=True)
class CocoFile:
    """The content of a COCO file."""

    where: str
    """What messages call it."""
    categories: dict[int, Category]
    """By their ids, ascending."""
    images: list[CocoImage]
    used: frozenset[int]
    """The ids of categories that objects have."""


def read_coco(file: Path, show: Callable[[Path], str]) -> CocoFile:
    """Return what the COCO file ``file`` says of its images; their boxes come from ``coco_boxes``.

    Raises:
        UserError: it is no such file, or an entry lacks what it needs; names the file and the entry.
    """
    where = show(file)
    content = _loaded(file, where)
    categories = dict(sorted(_categories(_entries(content, "categories", where), where).items()))
    images: dict[int | str, CocoImage] = {}
    for position, entry in enumerate(_entries(content, "images", where)):
        image_id = _image_id(entry.get("id"), f"{where}: images[{position}]: id")
        image = _image(entry, f"{where}: image {shortened(image_id)}")
        if image_id in images:
            raise UserError(f"{image.where} is there twice; give each image an id of its own")
        images[image_id] = image
    if not images:
        raise UserError(f"{where}: names no images; give the file that describes them")
    used: set[int] = set()
    for position, entry in enumerate(_entries(content, "annotations", where)):
        entry_where = annotation_name(where, entry, position)
        image_id = _image_id(entry.get("image_id"), f"{entry_where}: image_id")
        category: Any = entry.get("category_id")
        if image_id not in images:
            raise UserError(f"{entry_where}: is of image {shortened(image_id)}, which images does not have")
        if not _is_integer(category) or category not in categories:
            raise UserError(f"{entry_where}: is of category {shortened(category)}, which categories does not have")
        used.add(category)
        images[image_id].annotations.append(entry)
    return CocoFile(where, categories, list(images.values()), frozenset(used))


def coco_boxes(image: CocoImage, classes: Mapping[int, int], ids: set[object], remarks: Remarks) -> Iterator[Box]:
    """Yield the objects of ``image``.

    Args:
        classes: from a category's id to its class.
        ids: of annotations that were seen, to which those of ``image`` are added.

    Raises:
        UserError: a box is none, or has negative sides; names the annotation.
    """
    for position, entry in enumerate(image.annotations):
        own = entry.get("id")
        name = f"annotation {shortened(own)}" if own is not None else f"its annotation no. {position + 1}"
        where = f"{image.where}, {name}"
        if own is not None:
            key = own if isinstance(own, int | str) else repr(own)
            if key in ids:
                remarks.add(DUPLICATE_ID, where)
            ids.add(key)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise UserError(f"{where}: iscrowd is {shortened(crowd)}, expected 0 or 1")
        area = entry.get("area")
        corners = _corners(entry, where, remarks)
        yield Box(
            corners,
            classes[entry["category_id"]],
            ignored=bool(crowd),
            area=None if area is None else _at_least_zero(area, f"{where}: area"),
            where=name,
        )


def annotation_name(where: str, entry: Mapping[str, Any], position: int) -> str:
    """Return what messages call an annotation."""
    own = entry.get("id")
    return f"{where}: annotation {shortened(own)}" if own is not None else f"{where}: annotations[{position}]"


def _loaded(file: Path, where: str) -> dict[str, Any]:
    with readable_file(where):
        data = file.read_bytes()
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON in UTF-8 ({printable(error)}); export it again") from error
    if not isinstance(content, dict):
        kind = "list" if isinstance(content, list) else type(content).__name__
        raise UserError(
            f"{where}: holds a {kind}, a COCO file is an object with images, annotations and categories; export the "
            "data set as COCO (object detection)"
        )
    return content


def _entries(content: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        found = "has no" if entries is None else "has, in place of a list,"
        raise UserError(f"{where}: {found} {key}; a COCO file has images, annotations and categories: export it again")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {key}[{position}] is {shortened(entry)}, expected an object")
    return entries


def _categories(entries: list[dict[str, Any]], where: str) -> dict[int, Category]:
    if not entries:
        raise UserError(f"{where}: has no categories; export it again with the classes")
    categories: dict[int, Category] = {}
    for position, entry in enumerate(entries):
        own: Any = entry.get("id")
        name = entry.get("name")
        place = f"{where}: categories[{position}]"
        if not _is_integer(own):
            raise UserError(f"{place}: id is {shortened(own)}, expected an integer")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UserError(f"{place}: name is {shortened(name)}, expected a text that can be printed")
        if own in categories:
            raise UserError(f"{place}: has the id {own} of category '{categories[own].name}'; give each its own")
        categories[own] = Category(name, str(entry.get("supercategory", "")))
    return categories


def _image(entry: Mapping[str, Any], where: str) -> CocoImage:
    return CocoImage(where, safe_name(entry.get("file_name"), f"{where}: file_name"), _size(entry, where), [])


def safe_name(name: object, where: str) -> PurePosixPath:
    """Return the path ``name``, which may be divided as Windows does.

    Raises:
        UserError: it is no text, or leads out of the folder of the images.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise UserError(f"{where} is {shortened(name)}, expected the name of an image file")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        raise UserError(
            f"{where} is {shortened(name)}, which leads out of the folder of the images; write it as seen from there"
        )
    return path


def _size(entry: Mapping[str, Any], where: str) -> Size | None:
    found = {key: entry.get(key) for key in ("height", "width")}
    if all(value is None for value in found.values()):
        return None
    for key, value in found.items():
        side = number(value, f"{where}: {key}")
        if side < 1 or side != int(side):
            raise UserError(f"{where}: {key} is {shortened(value)}, expected pixels, a whole number from 1 on")
    return int(found["height"]), int(found["width"])  # type: ignore[arg-type]  # numbers, as was checked


def _corners(entry: Mapping[str, Any], where: str, remarks: Remarks) -> tuple[float, float, float, float]:
    box = entry.get("bbox")
    if box is None or box == []:
        remarks.add(NO_BOX, where)
        return _extremes(entry.get("segmentation"), where)
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: bbox is {shortened(box)}, expected [x, y, width, height]")
    x, y, width, height = (number(value, f"{where}: bbox") for value in box)
    if width < 0 or height < 0:
        raise UserError(
            f"{where}: bbox has the width {width:g} and the height {height:g}; a bbox is "
            "[x, y, width, height] and no side is negative: repair it"
        )
    return x, y, x + width, y + height


def _extremes(outline: object, where: str) -> tuple[float, float, float, float]:
    """Return the box around the polygons of ``outline``."""
    if not isinstance(outline, list) or not outline:
        what = "a mask in run lengths and no bbox" if isinstance(outline, dict) else "neither bbox nor polygon"
        raise UserError(f"{where}: has {what}; export it with boxes")
    xs: list[float] = []
    ys: list[float] = []
    for polygon in outline:
        if not isinstance(polygon, list) or len(polygon) < LEAST_OUTLINE or len(polygon) % 2:
            raise UserError(f"{where}: segmentation has {shortened(polygon)}, expected [x, y, x, y, ...]")
        values = [number(value, f"{where}: segmentation") for value in polygon]
        xs += values[::2]
        ys += values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _at_least_zero(value: object, where: str) -> float:
    found = number(value, where)
    if found < 0:
        raise UserError(f"{where} is {found:g}, expected pixels, 0 or more")
    return found


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _image_id(value: object, where: str) -> int | str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UserError(f"{where} is {shortened(value)}, expected an integer or a text")
