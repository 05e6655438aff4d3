"""What a TensorRT engine is to be, and the command that builds it on a device without this code."""

import shlex
from pathlib import Path
from typing import NamedTuple

from pipeline.core.files import Json
from pipeline.core.signature import Signature
from pipeline.export.precisions import FP32
from pipeline.export.tensorrt.settings import ExportTensorrt

TIMING_CACHE = "tensorrt.timing"
HARDWARE = {"none": "none", "ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
"""From each choice of ``hardware_compatibility`` to trtexec's word for it."""


class EnginePlan(NamedTuple):
    """What to build."""

    onnx: Path
    precision: str
    """That of the ONNX file, whose types decide."""
    signature: Signature
    settings: ExportTensorrt

    @property
    def file(self) -> str:
        """The name of the engine's file."""
        return "model.plan" if self.precision == FP32 else f"model.{self.precision}.plan"

    @property
    def batches(self) -> dict[str, int]:
        """The batch sizes of the profile: min, opt and max."""
        settings = self.settings
        return {"min": settings.min_batch, "opt": settings.opt_batch, "max": settings.max_batch}

    @property
    def options(self) -> Json:
        """How the engine is built, beside its profile."""
        return self.settings.model_dump(mode="json", exclude={"precisions", "min_batch", "opt_batch", "max_batch"})

    def shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the input for ``batch`` images."""
        return (batch, *self.signature.input.shape)


def trtexec_command(plan: EnginePlan) -> str:
    """Return the shell command that builds the same engine with NVIDIA's trtexec, beside the ONNX file.

    The file's types decide the precision (``--stronglyTyped``, which TensorRT 11 takes and always does), and TF32 stays
    off as polygraphy leaves it.
    """
    settings, taken = plan.settings, plan.signature.input.name
    shapes = {name: "x".join(map(str, plan.shape(size))) for name, size in plan.batches.items()}
    words = [
        "trtexec",
        f"--onnx={plan.onnx.name}",
        f"--saveEngine={plan.file}",
        "--stronglyTyped",
        "--noTF32",
        "--skipInference",
        f"--builderOptimizationLevel={settings.optimization_level}",
        f"--memPoolSize=workspace:{settings.workspace_mib}",
        *(f"--{name}Shapes={taken}:{shape}" for name, shape in shapes.items()),
    ]
    if settings.version_compatible:
        words.append("--versionCompatible")
    if settings.hardware_compatibility != "none":
        words.append(f"--hardwareCompatibilityLevel={HARDWARE[settings.hardware_compatibility]}")
    if settings.timing_cache:
        words.append(f"--timingCacheFile={TIMING_CACHE}")
    return shlex.join(words)
