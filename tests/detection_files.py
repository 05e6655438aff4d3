"""Small detection data sets in the forms that people have them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.sources.coco import open_coco
from pipeline.data.splits import ImageSource
from tests.helpers import image_bytes

CATEGORIES = ({"id": 3, "name": "cat"}, {"id": 7, "name": "dog"})
WIDTH, HEIGHT = 40, 30


def write_images(folder: Path, names: Sequence[str], *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write an image of ``size`` (width, height) for each of ``names`` below ``folder``."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_bytes(size=size, seed=abs(hash_of(str(file.relative_to(folder.parent))))))
    return folder


def hash_of(text: str) -> int:
    """Return a number that is the same for the same ``text``."""
    return int.from_bytes(text.encode()[-6:], "big")


def coco(images: Sequence[Any], annotations: Sequence[Any], **more: Any) -> dict[str, Any]:
    """Return the content of a COCO file."""
    return {"images": [*images], "annotations": [*annotations], "categories": [*CATEGORIES], **more}


def image(number: int = 1, name: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the entry of an image."""
    return {"id": number, "file_name": name or f"{number}.png", "width": WIDTH, "height": HEIGHT, **more}


def thing(number: int = 1, of: Any = 1, box: Any = (2, 3, 10, 12), category: Any = 3, **more: Any) -> dict[str, Any]:
    """Return the entry of an object."""
    box = list(box) if isinstance(box, tuple) else box
    return {"id": number, "image_id": of, "category_id": category, "bbox": box, "iscrowd": 0, "area": 50.5, **more}


def write_coco(file: Path, content: Any) -> Path:
    """Write ``content`` as JSON, and the images that it names beside it where there are none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def coco_set(root: Path, *annotations: Mapping[str, Any], images: int = 1, **more: Any) -> Path:
    """Write a set of ``images`` and their ``annotations`` into ``root``, with one file for all."""
    write_images(root, [f"{number + 1}.png" for number in range(images)])
    write_coco(root / "all.json", coco([image(number + 1) for number in range(images)], annotations, **more))
    return root


def opened(root: Path, **options: Any) -> ImageSource:
    """Return the COCO data set in the directory ``root``."""
    with open_coco(root, False, **options) as source:  # noqa: FBT003  (signature of Open)
        return source


def held(width: int, height: int, orientation: int, spot: tuple[int, int, int, int]) -> bytes:
    """Return a JPEG file of stored ``width`` x ``height``, white in ``spot``, whose camera says how it was held."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = spot
    pixels[y1:y2, x1:x2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()
