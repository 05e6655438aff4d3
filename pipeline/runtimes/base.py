"""What evaluation and benchmark need of a runtime."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.store import Split
from pipeline.metrics import Logits

Images = NDArray[np.float32]


class Runtime(Protocol):
    """A deployed network."""

    def run(self, images: Images) -> Logits:
        """Return logits (B, num_classes) of RGB images (B, 3, H, W) in [0, 1]; done when it returns."""

    def describe(self) -> str:
        """Return what runs, in words: runtime, version, device or provider, threads."""


def image_batches(split: Split, batch_size: int) -> Iterator[Images]:
    """Yield the images of ``split`` in order, as float32 in [0, 1]."""
    for images in torch.split(split.images, batch_size):
        yield np.ascontiguousarray(images.numpy(), dtype=np.float32) / np.float32(255)


def predict(runtime: Runtime, split: Split, batch_size: int) -> Logits:
    """Return the logits (N, num_classes) of the whole ``split``."""
    return np.concatenate([runtime.run(images) for images in image_batches(split, batch_size)])
