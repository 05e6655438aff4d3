"""How many places a detector has, which follows from its backbone and the size of its images alone."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from models.detection.building import build_detector


def count_places(network: Mapping[str, Any]) -> int:
    """Return the number of places of the detector that is made by ``network``, or is made in part by it.

    Args:
        network: arguments of ``build_detector``, and of what is built around a detector.
    """
    names = inspect.signature(build_detector).parameters
    with torch.device("meta"):
        return len(build_detector(**{name: value for name, value in network.items() if name in names}).places)
