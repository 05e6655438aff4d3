"""Images of a gallery: what is found on them, and what is not, drawn in."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from pipeline.tasks.base import Image, Row, Tile
from pipeline.tasks.detection.image_rows import named_classes, read_rows
from pipeline.tasks.detection.instances import cornered, detected, ground_truth
from pipeline.tasks.detection.mistakes import Kind, sort_out

LONGER_SIDE = 432
"""Pixels up to which a small image is enlarged, so that lines are thin beside what they surround."""
LINE = LONGER_SIDE // 144
DASH = 4 * LINE
"""Pixels of a dash, and of the gap after it."""
RIGHT, WRONG, POOR, MISSED = (0, 160, 48), (224, 0, 0), (240, 144, 0), (32, 96, 255)


class Drawn(NamedTuple):
    """A box to draw."""

    box: NDArray[np.float64]
    color: tuple[int, int, int]
    is_dashed: bool = False


def tile(pixels: Image, row: Row, least_score: float) -> Tile:
    """Return the image without its padding, boxes drawn in: right green, wrong red, badly placed amber, missed blue.

    Missed objects have dashed boxes. Under the image stand its file and how many boxes there are of each kind.
    """
    outputs, truth = read_rows([row], named_classes(row))
    known = ground_truth(truth)
    answers = detected(outputs, truth).from_score(least_score)
    kinds = sort_out(answers, known)
    scale = float(truth["scales"][0])
    picture = _without_padding(pixels, truth["sizes"][0], scale)
    factor = max(1, round(LONGER_SIDE / max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.NEAREST)
    drawn = [
        Drawn(box, MISSED, is_dashed=True)
        for box, kind in zip(cornered(known.boxes), kinds.objects, strict=True)
        if kind is Kind.MISSED
    ]
    drawn += [
        Drawn(box, RIGHT if kind is Kind.RIGHT else POOR if kind is Kind.POORLY_PLACED else WRONG)
        for box, kind in zip(cornered(answers.boxes), kinds.detections, strict=True)
        if kind is not Kind.IGNORED
    ][::-1]  # the surest on top
    draw, width = ImageDraw.Draw(picture), max(1, round(LINE * max(picture.size) / LONGER_SIDE))
    for one in drawn:
        _draw(draw, one._replace(box=one.box * scale * factor), width)
    wrong = sum(kind.is_wrong for kind in kinds.detections)
    missed, poor = kinds.objects.count(Kind.MISSED), kinds.detections.count(Kind.POORLY_PLACED)
    lines = row["file"], f"{kinds.objects.count(Kind.RIGHT)} right, {wrong} wrong", f"{missed} missed, {poor} misplaced"
    return Tile(np.asarray(picture), lines, is_right=not (wrong or missed or poor))


def _without_padding(pixels: Image, size: NDArray[np.int64], scale: float) -> Pillow.Image:
    """Return the image alone, which is ``size`` large in its own pixels."""
    height, width = np.maximum(1, (size * scale).round().astype(np.int64)).tolist()
    return Pillow.fromarray(np.ascontiguousarray(pixels[:height, :width]))


def _draw(draw: ImageDraw.ImageDraw, one: Drawn, width: int) -> None:
    """Draw a box, whose edges lie inside of it."""
    x1, y1, x2, y2 = one.box.tolist()
    right, bottom = max(x1, x2 - 1), max(y1, y2 - 1)
    if not one.is_dashed:
        draw.rectangle((x1, y1, right, bottom), outline=one.color, width=width)
        return
    thick = width - 1
    for x in np.arange(x1, right, 2 * DASH).tolist():
        end = min(x + DASH, right)
        draw.rectangle((x, y1, end, min(y1 + thick, bottom)), fill=one.color)
        draw.rectangle((x, max(y1, bottom - thick), end, bottom), fill=one.color)
    for y in np.arange(y1, bottom, 2 * DASH).tolist():
        end = min(y + DASH, bottom)
        draw.rectangle((x1, y, min(x1 + thick, right), end), fill=one.color)
        draw.rectangle((max(x1, right - thick), y, right, end), fill=one.color)
