"""Detection: boxes around things, each with a class and a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.detections import IN_GRAPH, NO_NMS, Detections
from pipeline.core.arrays import Outputs, Truth
from pipeline.core.errors import GateError, user_error
from pipeline.core.signature import Signature, TensorSpec, image_input
from pipeline.tasks.base import (
    Classes,
    Image,
    Painter,
    Placement,
    Prediction,
    Review,
    Row,
    ScoreChange,
    Scores,
    Task,
    Tile,
)
from pipeline.tasks.detection import answers, card, facts
from pipeline.tasks.detection.image_rows import IMAGE_COLUMNS, image_rows
from pipeline.tasks.detection.instances import (
    BOXES,
    CLASSES,
    COUNT,
    SCORES,
    Detected,
    GroundTruth,
    detected,
    ground_truth,
    require_named,
)
from pipeline.tasks.detection.suppression import ALL_BOXES, ALL_SCORES, Suppression, suppress
from pipeline.tasks.detection.truth_check import require_truth
from pipeline.tasks.parity import Parity, Scale

if TYPE_CHECKING:
    from typing import Self

    from pipeline.data.splits import ImageSet
    from pipeline.tasks.training import TaskTraining

PAIRS_AT_ONCE = 2**24
"""Pairs of candidates that may be compared at once: 64 MB in each of the tensors that a tail makes of them."""
LARGEST_BATCH = 64
TITLES = {
    "ap50": "AP at IoU 0.50",
    "ap75": "AP at IoU 0.75",
    "ap_small": "AP of small objects, up to 32 x 32 pixels",
    "ap_medium": "AP of medium objects, up to 96 x 96 pixels",
    "ap_large": "AP of large objects",
    "ar100": "share of objects found, mean over IoU 0.50 to 0.95",
}
"""Of the scores beside the primary one."""


class Detection(Task):
    """The task ``detection``.

    Args:
        detections: what deployed networks answer.
        network: how the network is made; empty: not known.
    """

    name = "detection"
    primary = "ap"
    primary_title = "AP"
    headline_scores = ("ap50",)
    truth_names = ("boxes", "classes", "offsets", "ignored", "areas", "sizes", "scales")
    resize = "letterbox"
    cpp_answer = "boxes"
    scored_on_samples = False
    top = None
    top_in_table = None
    prediction_columns = answers.COLUMNS
    image_columns = IMAGE_COLUMNS

    def __init__(self, detections: Detections | None = None, network: Mapping[str, Any] | None = None) -> None:
        self.detections = detections or Detections()
        self.network = network or {}
        self.batch_size = max(1, min(LARGEST_BATCH, PAIRS_AT_ONCE // self.detections.candidates**2))

    @property
    def primary_in_words(self) -> str:
        """Return AP."""
        return self.primary_title

    def configured(self, detections: Detections, network: Mapping[str, Any]) -> Self:
        """Return the task with thresholds of ``network``'s detector where ``detections`` leave them open."""
        if "detector" in network:
            from models.detection.detectors import DETECTORS

            detections = DETECTORS[network["detector"]].filled(detections)
        return type(self)(detections, network)

    def encode_truth(self, images: ImageSet, kept: Sequence[int], image_size: tuple[int, int]) -> Truth:
        """Return boxes in pixels of the input, classes and all that evaluation needs."""
        from pipeline.tasks.detection.truth import encode_objects

        assert images.objects is not None
        return encode_objects(images.objects.select(kept), image_size)

    def signature(self, *, image_size: tuple[int, int], input_dtype: str, class_names: Sequence[str]) -> Signature:
        """Return the input ``image`` and four outputs; two, where the network drops no overlapping boxes."""
        settings = self.detections
        if settings.nms == NO_NMS:
            places = self._count_places()
            outputs = (
                TensorSpec(ALL_BOXES, "float32", (places, 4)),
                TensorSpec(ALL_SCORES, "float32", (places, len(class_names))),
            )
            return Signature(image_input(image_size, input_dtype), outputs)
        most = min(settings.max_detections, settings.candidates)
        return Signature(
            image_input(image_size, input_dtype),
            (
                TensorSpec(COUNT, "int32", (1,)),
                TensorSpec(BOXES, "float32", (most, 4)),
                TensorSpec(SCORES, "float32", (most,)),
                TensorSpec(CLASSES, "int32", (most,)),
            ),
        )

    def _count_places(self) -> int:
        from pipeline.tasks.detection.training import count_places

        return count_places(self.network)

    def score(self, outputs: Outputs, truth: Truth) -> Scores:
        """Return COCO's figures; see ``pipeline.tasks.detection.evaluation``.

        Raises:
            GateError: the outputs are not all finite.
            UserError: no object on the images counts.
        """
        from pipeline.tasks.detection.evaluation import evaluate

        found, known = self._instances(outputs, truth)
        kinds = 1 + max(found.classes.max(initial=0), known.classes.max(initial=0))
        return evaluate(found, known, int(kinds)).scores()

    def standard_error(self, outputs: Outputs, truth: Truth) -> float:
        """Return the standard error of AP by the jackknife; see ``pipeline.tasks.detection.uncertainty``."""
        from pipeline.tasks.detection.uncertainty import ap_without_groups, jackknife_error

        return jackknife_error(ap_without_groups(*self._instances(outputs, truth)))

    def change(self, outputs: Outputs, reference: Outputs, truth: Truth, *, allowed: float) -> ScoreChange:
        """Return what AP loses, with the standard error of the difference on the same images."""
        from pipeline.tasks.detection.uncertainty import ap_without_groups, jackknife_error

        score, trained = (self.score(given, truth)[self.primary] for given in (outputs, reference))
        without = [ap_without_groups(*self._instances(given, truth)) for given in (outputs, reference)]
        error, drop = jackknife_error(without[1] - without[0]), trained - score
        excess = max(drop - allowed, 0.0)
        above = excess / error if error else math.inf if excess else 0.0
        counted = f"{len(truth['sizes'])} images, the difference has a standard error of {error:.2%}"
        return ScoreChange(score, trained, drop, above, counted)

    def doubts(self, outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[str]:
        """Return whether the boxes are on objects; see ``pipeline.tasks.detection.doubts``."""
        from pipeline.tasks.detection.doubts import doubts

        return doubts(*self._instances(outputs, truth), class_names)

    def compare(self, outputs: Outputs, reference: Outputs, scale: Scale) -> Parity:  # noqa: ARG002  (nothing is scaled)
        """Return how many detections are the same; see ``pipeline.tasks.detection.parity``."""
        from pipeline.tasks.detection.parity import compare_detections

        found, known = (self.listed(given) for given in (outputs, reference))
        return compare_detections(found, known, least_score=self._from_score)

    def require_truth(self, truth: Truth, count: int, class_names: Sequence[str]) -> None:
        """Check the objects of ``count`` images."""
        require_truth(truth, count, class_names)

    def require_signature(self, signature: Signature, class_names: Sequence[str]) -> None:
        """Check the outputs, as far as the number of places is not their own, and that thresholds are known."""
        settings = self.detections
        if settings.score_threshold is None or settings.iou_threshold is None:
            raise ValueError("detections: score_threshold and iou_threshold of a finished file are numbers")
        if settings.nms == IN_GRAPH:
            super().require_signature(signature, class_names)
            return
        shapes = {output.name: output.shape for output in signature.outputs}
        places = shapes.get(ALL_BOXES, (0,))[0]
        if shapes != {ALL_BOXES: (places, 4), ALL_SCORES: (places, len(class_names))}:
            right = f"{ALL_BOXES} (places, 4) and {ALL_SCORES} (places, {len(class_names)})"
            raise ValueError(f"its signature has the outputs {shapes}; without nms they are {right}")

    def require_answers(self, outputs: Outputs, class_names: Sequence[str]) -> None:
        """Check the classes of detections."""
        require_named(self.listed(outputs), class_names)

    @property
    def least_score(self) -> float:
        """Return the threshold of the graph's suppression; 0 where the outputs hold all boxes."""
        return 0.0 if self.detections.nms == NO_NMS else self._from_score

    @property
    def _from_score(self) -> float:
        return self.detections.score_threshold or 0.0

    def predictions(
        self,
        images: Sequence[Placement],
        outputs: Outputs,
        classes: Classes,
        *,
        top: int | None,
        min_score: float | None = None,
    ) -> list[Prediction]:
        """Return the boxes on each image in its own pixels."""
        least = self._from_score if min_score is None else min_score
        listed = self.listed(outputs, score_threshold=least)
        with user_error("labels.json", advice="fetch the package again"):
            require_named(listed, classes.names)
        return answers.predictions(images, listed, classes, top=top, min_score=least)

    def painter(self) -> Painter:
        """Return what draws boxes."""
        from pipeline.tasks.detection.drawing import draw_detections

        return draw_detections

    def preprocessing(self) -> Mapping[str, Any]:
        """Return how images are letterboxed."""
        return card.PREPROCESSING

    def image_rows(self, names: Sequence[str], outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[Row]:
        """Return objects and detections of each image."""
        return image_rows(names, self.listed(outputs), truth, class_names)

    def review(self, rows: Sequence[Row], class_names: Sequence[str]) -> Review:
        """Return mistakes, galleries, figures of classes, confusion and curves."""
        from pipeline.tasks.detection.review import review

        return review(rows, class_names)

    def tile(self, pixels: Image, row: Row, review: Review) -> Tile:
        """Return the image with boxes drawn in."""
        from pipeline.tasks.detection.tiles import tile

        return tile(pixels, row, review.least_score)

    def card_rows(self, scores: Scores) -> list[tuple[str, str]]:
        """Return the scores by overlap and size, as far as there are objects."""
        return [(title, f"{scores[name]:.2%}") for name, title in TITLES.items() if name in scores]

    def card_usage(self) -> str:
        """Return how boxes come back into the pixels of the image."""
        return card.USAGE_WITHOUT_NMS if self.detections.nms == NO_NMS else card.USAGE

    def output_facts(self) -> Mapping[str, Any]:
        """Return how boxes are given and chosen."""
        return facts.output_facts(self.detections)

    def training(self) -> TaskTraining:
        """Return ``pipeline.tasks.detection.training.DetectionTraining``."""
        from pipeline.tasks.detection.training import DetectionTraining

        return DetectionTraining(self, self.detections)

    def _instances(self, outputs: Outputs, truth: Truth) -> tuple[Detected, GroundTruth]:
        return detected(self.listed(outputs), truth), ground_truth(truth)

    def listed(self, outputs: Outputs, *, score_threshold: float | None = None) -> Outputs:
        """Return the four arrays of detections, whichever the outputs are.

        Args:
            score_threshold: that of the suppression, where it is done here; None: that of the settings.

        Raises:
            GateError: suppression would hide that the outputs are not all finite.
        """
        if COUNT in outputs:
            return outputs
        if not all(np.isfinite(outputs[name]).all() for name in (ALL_BOXES, ALL_SCORES)):
            raise GateError("boxes or scores are not all finite")
        settings = self.detections
        assert settings.iou_threshold is not None
        return suppress(
            outputs[ALL_BOXES],
            outputs[ALL_SCORES],
            Suppression(
                score_threshold=self._from_score if score_threshold is None else score_threshold,
                iou_threshold=settings.iou_threshold,
                candidates=settings.candidates,
                rounds=settings.rounds,
                max_detections=settings.max_detections,
            ),
        )
