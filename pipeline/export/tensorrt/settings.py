"""Settings of the TensorRT engines: their precisions, batch sizes and build options."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from models.core.table import Table
from pipeline.core.settings import Count, EachOnce, Section, entry_of, knob, rare
from pipeline.export.precisions import PRECISIONS, engine_precisions
from pipeline.export.tensorrt.plan import SLOWEST_BUILD, EngineSettings

ENGINE_PRECISIONS = Table("precision of engines", *(PRECISIONS[name] for name in engine_precisions()))
"""The precisions from whose files TensorRT builds engines."""


class ExportTensorrt(Section):
    """The TensorRT engines: their batch profile and build options."""

    precisions: Annotated[
        tuple[Annotated[str, entry_of(ENGINE_PRECISIONS)], ...], Strict(strict=False), Field(min_length=1), EachOnce
    ] = knob(("fp32", "fp16"), "an engine each")
    min_batch: Count = knob(EngineSettings.min_batch, "smallest batch that an engine takes")
    opt_batch: Count = knob(EngineSettings.opt_batch, "batch for which the builder chooses its kernels")
    max_batch: Count = knob(EngineSettings.max_batch, "largest batch that an engine takes")
    optimization_level: Annotated[int, Field(ge=0, le=SLOWEST_BUILD)] = rare(
        EngineSettings.optimization_level, "how long the builder searches for faster kernels"
    )
    workspace_mib: Count = rare(
        EngineSettings.workspace_mib, "GPU memory that a layer may use for intermediate results, in MiB"
    )
    version_compatible: bool = rare(
        default=EngineSettings.version_compatible,
        description="an engine also runs on later TensorRT versions of the same major",
    )
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = rare(
        EngineSettings.hardware_compatibility, "on which other GPUs an engine runs"
    )
    timing_cache: bool = rare(
        default=EngineSettings.timing_cache,
        description="keep what the builder measured, for the next build on this GPU",
    )

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        self.plain()
        return self

    def plain(self) -> EngineSettings:
        """Return how each engine is built, as those who have a package read it."""
        return EngineSettings(**self.model_dump(exclude={"precisions"}))
