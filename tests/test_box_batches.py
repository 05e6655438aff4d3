"""Boxes follow the pixels of images that are painted boxes, through each augmentation, packed and as an index."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from torch import Tensor

from pipeline.data.batch import Batch, TrainingBatches
from pipeline.data.letterbox import PADDING
from pipeline.data.loaders import open_training_batches
from pipeline.data.settings import Augment
from pipeline.tasks.detection.targets import BoxTargets

Prepare = Callable[..., Result]

CPU = torch.device("cpu")
HEIGHT, WIDTH = 64, 96
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)])
"""Of the classes; no two boxes of an image have the same."""
OTHERS = np.array([(20, 20, 20), (0, 0, 0), (PADDING,) * 3])
"""Of the rest of an image, of what moves in at its edges, and of what lies beside it."""
TOLERANCE = 1.0
"""Pixels, of those that were resized last, by which a box may differ from what is painted: edges are blurred."""
LARGEST_BOX = 700
"""Pixels of the largest box of a letterboxed image."""
SIZES = [(64, 96), (50, 90), (96, 64), (40, 120), (200, 150), (130, 300)]
LARGE = (1407, 2003)
"""Decoded reduced; by 8 neither side is divided."""


def painted(size: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """Return an image of ``size`` (h, w) and its objects: class and x, y, width, height; some have none."""
    image = np.full((*size, 3), 20, np.uint8)
    objects = []
    for number in np.flatnonzero(generator.random(len(COLORS)) < generator.choice([0.0, 0.5, 0.9])):
        row, column = divmod(int(number), 3)
        high, wide = size[0] // 2, size[1] // 3
        top, left = (int(side * generator.uniform(0.1, 0.25)) for side in (high, wide))
        bottom, right = (int(side * generator.uniform(0.7, 0.9)) for side in (high, wide))
        y, x = row * high + top, column * wide + left
        image[y : row * high + bottom, x : column * wide + right] = COLORS[number]
        objects.append((int(number), [x, y, right - left, bottom - top]))
    return image, objects


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Return the folder of 30 painted images in COCO's format, one of them a large photo of a turned camera."""
    root, generator = tmp_path / "scenes", np.random.default_rng(5)
    root.mkdir()
    images, annotations = [], []
    for number in range(30):
        size = LARGE if number == 7 else SIZES[number % len(SIZES)]
        image, objects = painted(size, generator)
        name, exif = f"{number}.png", Image.Exif()
        if number == 7:
            name, exif[0x0112] = f"{number}.jpg", 3
            image = image[::-1, ::-1]
        Image.fromarray(image).save(root / name, quality=95, exif=exif)
        images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for category, box in objects:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * category, "bbox": box}
                | {"iscrowd": int(category == 2 and number % 2)}
            )
    categories = [{"id": 10 * number, "name": str(number)} for number in range(len(COLORS))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "all.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def prepared(scenes: Path, prepare: Prepare, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that prepares the scenes as packed, or as an index."""

    def run(storage: str) -> Path:
        result = prepare(scenes, "coco", image_size=[HEIGHT, WIDTH], storage=storage)
        assert result.exit_code == 0, result.output
        return tmp_path / "out"

    return run


def opened(folder: Path, batch_size: int = 6, **augment: Any) -> TrainingBatches:
    settings = Augment(**{"crop_padding": 0} | augment)
    return open_training_batches(folder, BoxTargets.of, batch_size=batch_size, augment=settings, mix=None, device=CPU)


def boxes_of(batch: Batch) -> BoxTargets:
    assert isinstance(batch.targets, BoxTargets)
    return batch.targets


def painted_boxes(image: Tensor) -> dict[int, np.ndarray]:
    """Return the extent of each colour in ``image`` (3, H, W), x1 y1 x2 y2."""
    pixels = 255 * image.permute(1, 2, 0).numpy()
    nearest = np.linalg.norm(pixels[:, :, None] - np.concatenate([COLORS, OTHERS]), axis=3).argmin(axis=2)
    found = {}
    for number in range(len(COLORS)):
        rows, columns = np.nonzero(nearest == number)
        if len(rows):
            found[number] = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return found


def assert_boxes_enclose(batch: Batch, zoom: float = 1.0) -> int:
    """Assert that boxes enclose what is painted in their colours, and nothing else is painted; return how many.

    ``zoom`` is by how much images may be enlarged along a side.
    """
    targets, tolerance = boxes_of(batch), TOLERANCE * max(1.0, zoom)
    for number, image in enumerate(batch.images):
        rows = slice(*targets.offsets[number : number + 2].tolist())
        seen = painted_boxes(image)
        for box, category in zip(targets.boxes[rows].numpy(), targets.classes[rows].tolist(), strict=True):
            if min(box[2:] - box[:2]) > 2 * tolerance:
                np.testing.assert_allclose(seen[category], box, atol=tolerance)
            seen.pop(category, None)
        for box in seen.values():
            sides = box[2:] - box[:2]
            assert min(sides) <= 2 or np.prod(sides - 1) <= 0.1 * LARGEST_BOX * zoom**2, "was dropped: little is left"
    return len(targets.boxes)


AUGMENTATIONS = [
    {},
    {"horizontal_flip": True},
    {"crop_padding": 12},
    {"resized_crop_scale": [0.3, 1.0]},
    {"resized_crop_scale": [0.5, 1.0], "horizontal_flip": True, "crop_padding": 5},
]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("storage", ["packed", "index"])
def test_boxes_follow_what_is_painted(prepared: Callable[[str], Path], storage: str, augment: dict[str, Any]) -> None:
    batches = opened(prepared(storage), **augment)
    zoom = augment.get("resized_crop_scale", [1.0])[0] ** -0.5
    found = sum(assert_boxes_enclose(batch, zoom) for seed in range(6) for batch in batches.epoch(seed))
    assert found > 200


@pytest.mark.parametrize("span", [[0.4, 2.5], [0.5, 0.5], [2.0, 2.0]])
def test_boxes_follow_images_that_are_larger_or_smaller(prepared: Callable[[str], Path], span: list[float]) -> None:
    batches = opened(prepared("index"), scale_jitter=span, horizontal_flip=True, crop_padding=3)
    found = sum(assert_boxes_enclose(batch, span[1]) for seed in range(6) for batch in batches.epoch(seed))
    assert found > 150
