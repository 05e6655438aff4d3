"""What a TensorRT engine is to be, and the command that builds it on a device without this code."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.core.files import Json
from pipeline.core.plain import shown
from pipeline.core.signature import Signature
from pipeline.export.precisions import FP32

TIMING_CACHE = "tensorrt.timing"
HARDWARE = {"none": "none", "ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
"""From each choice of ``hardware_compatibility`` to trtexec's word for it."""


BATCHES = ("min_batch", "opt_batch", "max_batch")
SLOWEST_BUILD = 5
"""The highest optimization level of TensorRT."""


@dataclass(frozen=True)
class EngineSettings:
    """How engines are built.

    Raises:
        ValueError: a setting makes no sense.
    """

    min_batch: int = 1
    """Smallest batch that an engine takes."""
    opt_batch: int = 8
    """Batch for which the builder chooses its kernels."""
    max_batch: int = 64
    """Largest batch that an engine takes."""
    optimization_level: int = 3
    """How long the builder searches for faster kernels, 0 to 5."""
    workspace_mib: int = 1024
    """GPU memory that a layer may use for intermediate results, in MiB."""
    version_compatible: bool = False
    """An engine also runs on later TensorRT versions of the same major."""
    hardware_compatibility: str = "none"
    """On which other GPUs an engine runs, a key of ``HARDWARE``."""
    timing_cache: bool = True
    """Keep what the builder measured, for the next build on this GPU."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch:
            got = f"{self.min_batch}, {self.opt_batch}, {self.max_batch}"
            raise ValueError(f"min_batch, opt_batch and max_batch must not decrease, got {got}; the smallest is 1")
        if not 0 <= self.optimization_level <= SLOWEST_BUILD:
            raise ValueError(f"optimization_level: got {self.optimization_level}, expected 0 to {SLOWEST_BUILD}")
        if self.workspace_mib < 1:
            raise ValueError(f"workspace_mib: got {self.workspace_mib}, expected 1 or more")
        if self.hardware_compatibility not in HARDWARE:
            known = ", ".join(HARDWARE)
            raise ValueError(
                f"hardware_compatibility: got {shown(self.hardware_compatibility)}, expected one of {known}"
            )


class EnginePlan(NamedTuple):
    """What to build."""

    onnx: Path
    precision: str
    """That of the ONNX file, whose types decide."""
    signature: Signature
    settings: EngineSettings

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
        return {name: value for name, value in asdict(self.settings).items() if name not in BATCHES}

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
