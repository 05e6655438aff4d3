"""Texts beside the points of a figure that lie neither on each other nor on a point, nor outside the frame."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
DISTANCES = (5, 14, 24, 36, 50, 66, 84)
"""Points between an annotation's nearest corner and what it belongs to; the first place that is free is taken."""
MARKER = 5
"""Half the width of a point's mark, in pixels."""
LEADER = 14
"""Distance from which on a line leads from an annotation to its point."""
ANCHORS = {-1: ("right", "top"), 0: ("center", "center"), 1: ("left", "bottom")}
"""From a direction to the side of an annotation that is turned to the point: left to right, and upwards."""


class Annotation(NamedTuple):
    """A text that belongs to a point."""

    x: float
    y: float
    text: str
    color: str


def annotate_apart(figure: Figure, axes: Any, annotations: Sequence[Annotation]) -> None:
    """Write each annotation beside its point (data coordinates), at the first place that is free.

    Call it when all else is drawn: a later change of limits or layout moves points away from their annotations.
    """
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    places = axes.transData.transform([(annotation.x, annotation.y) for annotation in annotations])
    taken = [Bbox.from_bounds(x - MARKER, y - MARKER, 2 * MARKER, 2 * MARKER) for x, y in places]
    for annotation in annotations:
        written = None
        for offset, direction in _offsets():
            if written is not None:
                written.remove()
            written = _write(axes, annotation, offset, direction)
            box = written.get_window_extent()
            if _is_free(box, taken, frame):
                break
        taken.append(box)


def _offsets() -> Iterator[tuple[tuple[float, float], tuple[int, int]]]:
    for distance, direction in itertools.product(DISTANCES, DIRECTIONS):
        yield (distance * direction[0], distance * direction[1]), direction


def _is_free(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> bool:
    inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
    return inside and not any(box.overlaps(other) for other in taken)


def _write(axes: Any, annotation: Annotation, offset: tuple[float, float], direction: tuple[int, int]) -> Any:
    leader = {"arrowstyle": "-", "color": "gray", "linewidth": 0.5} if max(map(abs, offset)) > LEADER else None
    return axes.annotate(
        annotation.text,
        (annotation.x, annotation.y),
        xytext=offset,
        textcoords="offset points",
        fontsize="small",
        color=annotation.color,
        ha=ANCHORS[direction[0]][0],
        va=ANCHORS[direction[1]][1],
        arrowprops=leader,
    )
