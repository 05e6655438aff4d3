"""TensorRT through polygraphy."""

from pathlib import Path

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
        """Return logits (B, num_classes), copied to host memory."""
        return self.runner.infer({"image": images})["logits"].copy()  # type: ignore[no-any-return]

    def describe(self) -> str:
        """Return runtime, version and GPU in words, as the engine's status records them."""
        return f"TensorRT {self.description['tensorrt']}, {self.description['gpu']}"
