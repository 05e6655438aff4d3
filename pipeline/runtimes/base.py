"""What evaluation and benchmark need of a runtime."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Logits

Images = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Runtime(Protocol):
    """A deployed network."""

    def run(self, images: Images) -> Logits:
        """Return logits (B, num_classes) of RGB images (B, 3, H, W) in [0, 1]; done when it returns."""

    def describe(self) -> str:
        """Return what runs, in words: runtime, version, device or provider, threads."""


def image_batches(pixels: Pixels, batch_size: int) -> Iterator[Images]:
    """Yield images (N, 3, H, W) in order, as float32 in [0, 1]."""
    for start in range(0, len(pixels), batch_size):
        yield np.ascontiguousarray(pixels[start : start + batch_size], dtype=np.float32) / np.float32(255)


def predict(runtime: Runtime, pixels: Pixels, batch_size: int) -> Logits:
    """Return the logits (N, num_classes) of all images ``pixels`` (N, 3, H, W)."""
    return np.concatenate([runtime.run(images) for images in image_batches(pixels, batch_size)])
