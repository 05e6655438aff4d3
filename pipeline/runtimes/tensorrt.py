"""TensorRT through polygraphy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.files import Json
from pipeline.metrics import Logits
from pipeline.runtimes.base import Images


class TensorrtRuntime:
    """An engine built on this device; load only plans that you built yourself, since a plan can carry host code."""

    def __init__(self, path: Path, *, description: Json) -> None:
        from polygraphy.backend.common import BytesFromPath
        from polygraphy.backend.trt import EngineFromBytes, TrtRunner

        self.runner = TrtRunner(EngineFromBytes(BytesFromPath(str(path))))
        self.runner.activate()
        self.description = description

    def run(self, images: Images) -> Logits:
        """Return logits (B, num_classes) in host memory; more images than the engine takes go in several calls."""
        sizes = self.description["batch"]
        return run_within(self._infer, images, smallest=sizes["min"], largest=sizes["max"])

    def _infer(self, images: Images) -> Logits:
        return self.runner.infer({"image": images})["logits"].copy()  # type: ignore[no-any-return]

    def describe(self) -> str:
        """Return runtime, version and GPU in words, as the engine's status records them."""
        return f"TensorRT {self.description['tensorrt']}, {self.description['gpu']}"


def run_within(infer: Callable[[Images], Logits], images: Images, *, smallest: int, largest: int) -> Logits:
    """Return the logits of ``images`` from calls of ``infer`` with ``smallest`` to ``largest`` images each.

    A batch that is too small is filled up with black images, whose logits are dropped.
    """
    parts = []
    for start in range(0, len(images), largest):
        part = images[start : start + largest]
        missing = max(smallest - len(part), 0)
        filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
        parts.append(infer(filled)[: len(part)])
    return np.concatenate(parts)
