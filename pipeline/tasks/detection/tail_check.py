"""Whether the tail looks at as many candidates, and suppresses in as many rounds, as images need."""

from typing import Protocol

import torch
from torch import Tensor

from models.core.calling import as_tuple
from models.detections import MAX_CANDIDATES, MAX_ROUNDS, NO_NMS, Detections
from pipeline.core.arrays import Pixels
from pipeline.core.errors import UserError
from pipeline.runtimes.base import to_input
from pipeline.tasks.training import ExportParts

BATCH = 8


class CheckedTail(Protocol):
    """What is asked of a tail."""

    def needed(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many scores of each image lie above the threshold, and how many rounds suppression takes, (B,)."""


def require_enough(parts: ExportParts, pixels: Pixels, detections: Detections) -> None:
    """Check that the tail of ``parts`` leaves out no candidate of any image (N, 3, H, W), and stops on none too early.

    Args:
        detections: how the tail is made.

    Raises:
        UserError: it does; names each setting to raise and the number that the images need, a line for each.
    """
    if detections.nms == NO_NMS:
        return
    candidates, rounds = _needed(parts, pixels)
    where = f"of {len(pixels)} calibration images"
    faults: list[str] = []
    if candidates > detections.candidates:
        more = f"set {candidates} or more" if candidates <= MAX_CANDIDATES else f"{MAX_CANDIDATES} is the most"
        more += ", whose pairs all take their time"
        faults.append(
            f"detections.candidates: got {detections.candidates}, but an image {where} has {candidates} scores above "
            f"detections.score_threshold ({detections.score_threshold:g}): raise that threshold, or {more}; "
            "a network that has learned little finds so many, so train it longer where its AP is low"
        )
    if rounds > detections.rounds:
        more = f"set {rounds} or more"
        if rounds > MAX_ROUNDS:
            more = f"{MAX_ROUNDS} is the most, so raise detections.score_threshold or detections.iou_threshold"
        faults.append(
            f"detections.rounds: got {detections.rounds}, but on an image {where} boxes are dropped for {rounds} "
            f"rounds: {more}"
        )
    if faults:
        raise UserError("\n".join(faults))


def _needed(parts: ExportParts, pixels: Pixels) -> tuple[int, int]:
    """Return the most candidates that an image has, and the most rounds that one takes."""
    tail: CheckedTail = parts.tail  # type: ignore[assignment]  # a module, whose attributes mypy does not know
    most = [0, 0]
    for start in range(0, len(pixels), BATCH):
        images = torch.from_numpy(to_input(pixels[start : start + BATCH], "float32"))
        with torch.inference_mode():
            found = tail.needed(*as_tuple(parts.body(images)))
        most = [max(before, int(now.max())) for before, now in zip(most, found, strict=True)]
    return most[0], most[1]
