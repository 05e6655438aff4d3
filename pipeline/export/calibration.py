"""Images from which the ranges of INT8 activations follow."""

from typing import NamedTuple

from pipeline.core.arrays import Pixels


class Calibration(NamedTuple):
    """From what ranges of activations follow."""

    pixels: Pixels
    """Images (N, 3, H, W)."""
    input_dtype: str
    """How the file takes them: ``float32`` or ``uint8``."""
    method: str
    """How a range follows from values: ``minmax`` or ``percentile``."""
