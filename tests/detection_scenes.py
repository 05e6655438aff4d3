"""Images full of objects, with detections of all kinds: right, shifted, twice, of other classes, out of thin air."""

from typing import NamedTuple

import numpy as np

from pipeline.core.arrays import Outputs, Truth


class Scenes(NamedTuple):
    """What is on some images, and what is found there."""

    outputs: Outputs
    truth: Truth
    class_names: list[str]


def make_scenes(
    count: int, *, num_classes: int = 5, seed: int = 0, objects: float = 6, noise: float = 12, crowds: float = 0.06
) -> Scenes:
    """Return ``count`` images with some ``objects`` each, a few of them crowds, and detections whose scores often tie.

    Args:
        noise: detections of an image that have nothing to do with an object.
    """
    random = np.random.default_rng(seed)
    sizes, scales = random.integers(60, 640, (count, 2)), random.uniform(0.3, 1.5, count)
    known, found = [], []
    for (height, width), scale in zip(sizes, scales, strict=True):
        sides = np.array([width, height, width, height]) * scale
        own, seen = [], []
        for _ in range(random.poisson(objects)):
            kind, box = random.integers(num_classes), _random_box(random) * sides
            own.append((box, kind, random.random() < crowds))
            for _ in range(random.integers(0, 4)):
                moved = box + random.normal(0, 0.07, 4) * np.tile(box[2:] - box[:2], 2)
                is_right = random.random() < 0.85
                seen.append((moved, kind if is_right else random.integers(num_classes), random.beta(4, 2)))
        seen += [
            (_random_box(random) * sides, random.integers(num_classes), random.beta(1.5, 5))
            for _ in range(random.poisson(noise))
        ]
        known.append(own)
        found.append(seen)
    return Scenes(_outputs(found), _truth(known, sizes, scales, random), [f"class {i}" for i in range(num_classes)])


def _random_box(random: np.random.Generator) -> np.ndarray:
    """Return x1, y1, x2, y2 as shares of the sides of an image."""
    sides = random.uniform(0.04, 0.6, 2)
    start = random.uniform(0, 1, 2) * (1 - sides)
    return np.concatenate([start, start + sides])


def _outputs(found: list) -> Outputs:
    most = max(map(len, found)) + 1
    outputs = {
        "num_detections": np.array([[len(items)] for items in found], np.int32),
        "detection_boxes": np.zeros((len(found), most, 4), np.float32),
        "detection_scores": np.zeros((len(found), most), np.float32),
        "detection_classes": np.full((len(found), most), -1, np.int32),
    }
    for image, items in enumerate(found):
        for place, (box, kind, score) in enumerate(sorted(items, key=lambda item: -round(item[2], 2))):
            outputs["detection_boxes"][image, place] = box
            outputs["detection_scores"][image, place] = round(score, 2)
            outputs["detection_classes"][image, place] = kind
    return outputs


def _truth(known: list, sizes: np.ndarray, scales: np.ndarray, random: np.random.Generator) -> Truth:
    flat = [item for own in known for item in own]
    boxes = np.array([box for box, _, _ in flat], np.float32).reshape(-1, 4)
    offsets = np.cumsum([0, *map(len, known)])
    images = np.repeat(np.arange(len(known)), np.diff(offsets))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / scales[images] ** 2
    return {
        "boxes": boxes,
        "classes": np.array([kind for _, kind, _ in flat], np.int64),
        "offsets": offsets.astype(np.int64),
        "ignored": np.array([ignored for _, _, ignored in flat], bool),
        "areas": (areas * random.uniform(0.5, 1, len(areas))).astype(np.float32),
        "sizes": sizes.astype(np.int64),
        "scales": scales.astype(np.float64),
    }
