"""What evaluation and latency measurements need of a runtime."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Pixels, concatenate


class Runtime(Protocol):
    """A deployed network."""

    input_dtype: str
    """``float32``: it takes pixels in [0, 1]; ``uint8``: pixels as they are."""

    def infer(self, images: NDArray[Any]) -> Outputs:
        """Return the outputs for RGB images (B, 3, H, W) of ``input_dtype``; done when it returns."""

    def describe(self) -> str:
        """Return what runs, in words: runtime, version, device or provider, threads."""


def to_input(pixels: Pixels, dtype: str) -> NDArray[Any]:
    """Return ``pixels`` (B, 3, H, W) as a network with inputs of ``dtype`` takes them."""
    images = np.ascontiguousarray(pixels)
    return images if dtype == "uint8" else images.astype(np.float32) / np.float32(255)


def predict(runtime: Runtime, pixels: Pixels, batch_size: int) -> Outputs:
    """Return the outputs for all images ``pixels`` (N, 3, H, W), in batches of ``batch_size``."""
    parts = (pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size))
    return concatenate([runtime.infer(to_input(part, runtime.input_dtype)) for part in parts])
