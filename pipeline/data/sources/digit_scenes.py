"""Scenes of handwritten digits with their boxes, made from scikit-learn's scans: objects to find without a download.

They are written as COCO's files and read back as anybody's are.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.data.sources.coco import open_coco
from pipeline.data.splits import ImageSource

SIDE = 64
"""Height and width of a scene in pixels."""
NUM_SCENES = {"train": 800, "test": 200}
TRAIN_SHARE = 0.7
"""Of the scans; scenes to test on show others."""
MOST_DIGITS = 5
SIDES = (10, 28)
"""Smallest and largest side of a scan in a scene, in pixels."""
INK = 0.25
"""Strength from which a pixel belongs to a digit; boxes are tight to those."""
MOST_OVERLAP = 2
"""Pixels by which the boxes of two digits may overlap along both axes."""
ATTEMPTS = 20
"""Places that are drawn for a digit until one is free."""
LARGEST_VALUE = 16
"""Of a pixel in the original scans."""
SEED = 13

Pixels = NDArray[np.float64]
"""Values from 0 to 1."""
Box = tuple[int, int, int, int]
"""x1, y1, x2, y2."""


class Scans(NamedTuple):
    """Digits to choose from."""

    ink: Pixels
    """Its strength, (N, 8, 8)."""
    digits: NDArray[np.int64]
    """Which digit each is, (N,)."""


class Scene(NamedTuple):
    """An image and what is on it."""

    pixels: NDArray[np.uint8]
    """(SIDE, SIDE, 3)."""
    boxes: list[Box]
    digits: list[int]


@contextlib.contextmanager
def open_digit_scenes(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001, FBT001  (signature of Open)
    """Yield 800 scenes to train on and 200 to test on, the same bytes each time."""
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder))
        with open_coco(Path(folder), download) as source:
            yield source


def write_scenes(folder: Path) -> None:
    """Write the scenes into ``folder``: for each split PNG files, and what is on them in COCO's format."""
    generator = np.random.default_rng(SEED)
    for split, scans in split_scans(generator).items():
        place = folder / split
        place.mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(NUM_SCENES[split]):
            scene = make_scene(scans, generator)
            name = f"{number:04d}.png"
            Image.fromarray(scene.pixels).save(place / name)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            annotations += _annotations(scene, number, first_id=len(annotations) + 1)
        categories = [{"id": digit, "name": str(digit)} for digit in range(10)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (place / "_annotations.coco.json").write_text(json.dumps(content))


def split_scans(generator: np.random.Generator) -> dict[str, Scans]:
    """Return the scans for each split; no scan is in two."""
    data = load_digits()
    order = generator.permutation(len(data.target))
    ends = round(TRAIN_SHARE * len(order))
    chosen = {"train": order[:ends], "test": order[ends:]}
    return {split: Scans(data.images[rows] / LARGEST_VALUE, data.target[rows]) for split, rows in chosen.items()}


def _annotations(scene: Scene, image_id: int, *, first_id: int) -> list[dict[str, Any]]:
    return [
        {
            "id": first_id + position,
            "image_id": image_id,
            "category_id": digit,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for position, ((x1, y1, x2, y2), digit) in enumerate(zip(scene.boxes, scene.digits, strict=True))
    ]


def make_scene(scans: Scans, generator: np.random.Generator) -> Scene:
    """Return a scene of 1 to ``MOST_DIGITS`` digits in dark, tinted ink over a smooth, light background with noise."""
    pixels, boxes, digits = _background(generator), list[Box](), list[int]()
    for _ in range(generator.integers(1, MOST_DIGITS + 1)):
        row = int(generator.integers(len(scans.digits)))
        ink = _enlarged(scans.ink[row], int(generator.integers(SIDES[0], SIDES[1] + 1)))
        box = _free_place(ink.shape, boxes, generator)
        if box is None:
            continue
        tint = generator.uniform(0.0, 0.35, 3)
        x1, y1, x2, y2 = box
        pixels[y1:y2, x1:x2] += ink[..., None] * (tint - pixels[y1:y2, x1:x2])
        boxes.append(box)
        digits.append(int(scans.digits[row]))
    pixels += generator.normal(0, 0.02, pixels.shape)
    return Scene((255 * pixels.clip(0, 1)).round().astype(np.uint8), boxes, digits)


def _background(generator: np.random.Generator) -> Pixels:
    """Return (SIDE, SIDE, 3): light colours that change slowly around one that is drawn."""
    middle = 0.75 + generator.uniform(-0.1, 0.1, 3)
    coarse = (middle + generator.normal(0, 0.05, (4, 4, 3))).clip(0, 1)
    smooth = Image.fromarray((255 * coarse).round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth) / 255


def _enlarged(ink: Pixels, side: int) -> Pixels:
    """Return the ``ink`` of a scan at ``side`` pixels, cut to where it is stronger than ``INK``."""
    grey = Image.fromarray((255 * ink).round().astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    grown = np.asarray(grey) / 255
    rows, columns = (np.flatnonzero((grown > INK).any(axis=axis)) for axis in (1, 0))
    return grown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(shape: tuple[int, ...], boxes: list[Box], generator: np.random.Generator) -> Box | None:
    """Return a place for ink of ``shape`` (h, w) that none of ``boxes`` takes; None where none is found."""
    height, width = shape
    for _ in range(ATTEMPTS):
        x1, y1 = int(generator.integers(SIDE - width + 1)), int(generator.integers(SIDE - height + 1))
        box = x1, y1, x1 + width, y1 + height
        if not any(_overlap(box, other) > MOST_OVERLAP for other in boxes):
            return box
    return None


def _overlap(one: Box, other: Box) -> int:
    """Return by how many pixels two boxes overlap along the axis where they overlap least."""
    return min(min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
