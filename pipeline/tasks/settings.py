"""Settings of what a deployed network answers, where its task leaves a choice."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.settings import Count, Section, knob, rare

MAX_CANDIDATES = 3840
"""TensorRT's TopK takes no more."""

Threshold = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Detections(Section):
    """What a detector reports: from the scores of its places to a list of boxes."""

    score_threshold: Threshold | None = knob(
        None, "boxes with a lower score are dropped; null: the detector's own, of fcos 0.2, of retinanet 0.05"
    )
    max_detections: Count = knob(100, "boxes of an image, at most")
    nms: Literal["graph", "none"] = knob(
        "graph", "graph: the network drops boxes that overlap a surer one; none: it returns all places, for your own"
    )
    iou_threshold: Annotated[float, Field(gt=0, le=1)] | None = rare(
        None, "boxes of a class that overlap by more are one; null: the detector's own, of fcos 0.6, of retinanet 0.5"
    )
    candidates: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = rare(
        500, "so many of the surest boxes of an image are looked at; checked on the calibration images"
    )
    rounds: Count = rare(16, "rounds in which overlapping boxes are dropped; checked on the calibration images")

    @model_validator(mode="after")
    def _candidates_hold_all_detections(self) -> Self:
        if self.max_detections > self.candidates:
            raise ValueError(
                f"max_detections: got {self.max_detections}, more than the {self.candidates} candidates; lower it, or "
                "raise candidates"
            )
        return self
