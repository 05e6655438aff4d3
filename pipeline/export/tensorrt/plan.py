"""What a TensorRT engine is to be, and the command that builds it on a device without this code."""

import shlex
from pathlib import Path
from typing import NamedTuple

from pipeline.core.files import Json

INPUT = "image"
OUTPUT = "logits"
TIMING_CACHE = "tensorrt.timing"
HARDWARE = {"none": "none", "ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
"""From each choice of ``hardware_compatibility`` to trtexec's word for it."""


class EnginePlan(NamedTuple):
    """What to build."""

    onnx: Path
    precision: str
    """That of the ONNX file, whose types decide: fp32, fp16 or int8-trt."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    min_batch: int
    opt_batch: int
    max_batch: int
    optimization_level: int
    """0 (fast to build) to 5 (thorough)."""
    workspace_mib: int
    """Memory that a layer may use while it runs, in MiB."""
    version_compatible: bool
    """Let later TensorRT versions load the engine, which is larger and slower."""
    hardware_compatibility: str
    """What other GPUs may load the engine: none, ampere_plus or same_compute_capability."""
    timing_cache: bool
    """Keep the timings of kernels for the next build on the same device."""

    @property
    def file(self) -> str:
        """The name of the engine's file."""
        return "model.plan" if self.precision == "fp32" else f"model.{self.precision}.plan"

    @property
    def batches(self) -> dict[str, int]:
        """The batch sizes of the profile: min, opt and max."""
        return {"min": self.min_batch, "opt": self.opt_batch, "max": self.max_batch}

    @property
    def options(self) -> Json:
        """How the engine is built, beside its profile."""
        names = ("optimization_level", "workspace_mib", "version_compatible", "hardware_compatibility", "timing_cache")
        return {name: getattr(self, name) for name in names}

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of the input for ``batch`` images."""
        return (batch, 3, *self.image_size)


def sidecar(plan: Path) -> Path:
    """Return the file that says what the engine in the file ``plan`` is."""
    return plan.with_name(f"{plan.name}.json")


def trtexec_command(plan: EnginePlan) -> str:
    """Return the shell command that builds the same engine with NVIDIA's trtexec, beside the ONNX file.

    The file's types decide the precision (``--stronglyTyped``, which TensorRT 11 takes and always does), and TF32 stays
    off as polygraphy leaves it.
    """
    words = [
        "trtexec",
        f"--onnx={plan.onnx.name}",
        f"--saveEngine={plan.file}",
        "--stronglyTyped",
        "--noTF32",
        "--skipInference",
        f"--builderOptimizationLevel={plan.optimization_level}",
        f"--memPoolSize=workspace:{plan.workspace_mib}",
        *(f"--{name}Shapes={INPUT}:{'x'.join(map(str, plan.shape(size)))}" for name, size in plan.batches.items()),
    ]
    if plan.version_compatible:
        words.append("--versionCompatible")
    if plan.hardware_compatibility != "none":
        words.append(f"--hardwareCompatibilityLevel={HARDWARE[plan.hardware_compatibility]}")
    if plan.timing_cache:
        words.append(f"--timingCacheFile={TIMING_CACHE}")
    return shlex.join(words)
