"""Settings of what a deployed network answers, where its task leaves a choice."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.detections import MAX_CANDIDATES, MAX_ROUNDS, Detections
from pipeline.core.settings import Count, Section, knob, rare

Threshold = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class DetectionSettings(Section):
    """What a detector reports: from the scores of its places to a list of boxes."""

    score_threshold: Threshold | None = knob(
        Detections.score_threshold,
        "boxes with a lower score are dropped; null: the detector's own, of fcos 0.2, of retinanet 0.05",
    )
    max_detections: Count = knob(Detections.max_detections, "boxes of an image, at most")
    nms: Literal["graph", "none"] = knob(
        Detections.nms,
        "graph: the network drops boxes that overlap a surer one; none: it returns all places, for your own",
    )
    iou_threshold: Annotated[float, Field(gt=0, le=1)] | None = rare(
        Detections.iou_threshold,
        "boxes of a class that overlap by more are one; null: the detector's own, of fcos 0.6, of retinanet 0.5",
    )
    candidates: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = rare(
        Detections.candidates,
        "so many of the surest boxes of an image are looked at; checked on the calibration images",
    )
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = rare(
        Detections.rounds, "rounds in which overlapping boxes are dropped; checked on the calibration images"
    )

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        self.plain()
        return self

    def plain(self) -> Detections:
        """Return them as those who have a package read them."""
        return Detections(**self.model_dump())
