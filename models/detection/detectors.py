"""The table of detectors: what finds objects on the levels of a feature pyramid.

To add one: a ``models.detection.rules.Rules`` in a file of this folder, and an entry here. Nothing heavy is imported
before an entry is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.table import Entry, Table
from ..detections import Detections

if TYPE_CHECKING:
    from .detector import Detector
    from .rules import Rules

EXTRA_LEVELS = ("pool", "p6p7", "p6p7_c5")
"""What a pyramid has above the backbone's levels: a subsampled one; or two by convolutions, the first of them from the
pyramid's last level or from the backbone's last feature map."""


@dataclass(frozen=True, kw_only=True)
class DetectorEntry(Entry):
    """A detector in the table."""

    load: Callable[[], type[Rules]]
    score_threshold: float
    """What a box must score to be reported, where nothing else is said; torchvision's own."""
    iou_threshold: float
    """By how much boxes of a class may overlap before the less sure one is dropped; torchvision's own."""
    deploys: bool = True
    """Whether it can be exported; else it can teach alone."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        for name in ("score_threshold", "iou_threshold"):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0 < value < 1:
                yield f"has the {name} {value!r}; give a number between 0 and 1"

    def filled(self, post: Detections) -> Detections:
        """Return ``post`` with this detector's thresholds where it has none."""
        return replace(
            post,
            score_threshold=self.score_threshold if post.score_threshold is None else post.score_threshold,
            iou_threshold=self.iou_threshold if post.iou_threshold is None else post.iou_threshold,
        )


def _fcos() -> type[Rules]:
    from .fcos import FcosRules

    return FcosRules


def _retinanet() -> type[Rules]:
    from .retinanet import RetinaNetRules

    return RetinaNetRules


def _retinanet_v2() -> type[Rules]:
    from .retinanet import RetinaNetV2Rules

    return RetinaNetV2Rules


def _faster_rcnn() -> type[Rules]:
    from .faster_rcnn import FasterRcnnRules

    return FasterRcnnRules


DETECTORS = Table(
    "detector",
    DetectorEntry(
        name="fcos",
        description="FCOS: each place says how far the sides of its object are; no anchors",
        load=_fcos,
        score_threshold=0.2,
        iou_threshold=0.6,
    ),
    DetectorEntry(
        name="retinanet",
        description="RetinaNet: nine anchors at each place, focal loss",
        load=_retinanet,
        score_threshold=0.05,
        iou_threshold=0.5,
    ),
    DetectorEntry(
        name="retinanet_v2",
        description="RetinaNet with group normalisation in its head and the GIoU loss",
        load=_retinanet_v2,
        score_threshold=0.05,
        iou_threshold=0.5,
    ),
    DetectorEntry(
        name="faster_rcnn",
        description="Faster R-CNN: two stages; it teaches features, and is not deployed",
        load=_faster_rcnn,
        score_threshold=0.05,
        iou_threshold=0.5,
        deploys=False,
    ),
)


def build_detector(**arguments: Any) -> Detector:
    """Return a detector with random weights; see ``models.detection.building.build_detector``."""
    from .building import build_detector as build

    return build(**arguments)
