"""How a detector's outputs become detections."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.core.settings import Count, Fraction, Section, knob, rare

MOST_CANDIDATES = 3840
"""TensorRT's TopK takes no more."""
Candidates = Annotated[int, Field(ge=1, le=MOST_CANDIDATES)]


class Detections(Section):
    """The section ``detections``."""

    score_threshold: Fraction | None = knob(
        None, "score from which on a box is a detection; null: the detector's own (fcos 0.2, retinanet 0.05)"
    )
    iou_threshold: Fraction | None = knob(
        None, "overlap above which the less sure of two boxes of a class is dropped; null: the detector's own"
    )
    max_detections: Count = knob(100, "detections of an image at most")
    candidates: Candidates = rare(500, "boxes of an image, the surest ones, among which overlapping ones are dropped")
    rounds: Count = rare(8, "how often overlapping boxes are looked for; checked on calib")
    nms: Literal["graph", "none"] = rare(
        "graph", "graph: overlapping boxes are dropped inside the network; none: it returns all boxes and scores"
    )
