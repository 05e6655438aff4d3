"""What is reported of all that a detector finds; needs no PyTorch, since who has a package reads it too."""

from dataclasses import dataclass

MAX_CANDIDATES = 3840
"""TensorRT's TopK takes no more."""
MAX_ROUNDS = 256
"""Each is unrolled into the graph, and chains of boxes that drop each other are short."""
IN_GRAPH, NO_NMS = NMS = ("graph", "none")


@dataclass(frozen=True)
class Detections:
    """What is reported of all that a detector finds.

    Raises:
        ValueError: a number makes no sense.
    """

    score_threshold: float | None = None
    """Boxes with a lower score are dropped; None: the detector's own."""
    max_detections: int = 100
    """Boxes of an image, at most."""
    nms: str = IN_GRAPH
    """``graph``: the network drops boxes that overlap a surer one; ``none``: it returns all places."""
    iou_threshold: float | None = None
    """Boxes of a class that overlap by more are one; None: the detector's own."""
    candidates: int = 500
    """So many of the surest boxes of an image are looked at."""
    rounds: int = 16
    """In so many rounds overlapping boxes are dropped."""

    def __post_init__(self) -> None:
        if self.score_threshold is not None and not 0 <= self.score_threshold < 1:
            raise ValueError(f"score_threshold: got {self.score_threshold}, expected 0 or more, and less than 1")
        if self.iou_threshold is not None and not 0 < self.iou_threshold <= 1:
            raise ValueError(f"iou_threshold: got {self.iou_threshold}, expected more than 0, and at most 1")
        if self.nms not in NMS:
            raise ValueError(f"nms: got {self.nms!r}, expected {' or '.join(NMS)}")
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise ValueError(f"candidates: got {self.candidates}, expected 1 to {MAX_CANDIDATES}")
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise ValueError(f"rounds: got {self.rounds}, expected 1 to {MAX_ROUNDS}")
        if self.max_detections < 1:
            raise ValueError(f"max_detections: got {self.max_detections}, expected 1 or more")
        if self.max_detections > self.candidates:
            raise ValueError(
                f"max_detections: got {self.max_detections}, more than the {self.candidates} candidates; lower it, or "
                "raise candidates"
            )
