"""What users of a file must know of its boxes, as it stands in its metadata and in the manifest."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from models.detections import Detections

BOXES = {"class_base": 0, "format": "xyxy", "space": "pixels of the network's input"}
"""Boxes are x1 y1 x2 y2; the first class is 0, and -1 fills lists up."""


def output_facts(detections: Detections) -> Mapping[str, Any]:
    """Return how boxes are given, and by which thresholds and numbers they were chosen."""
    return {"boxes": BOXES, "detections": asdict(detections)}
