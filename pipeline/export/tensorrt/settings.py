"""Settings of the TensorRT engines: their precisions, batch sizes and build options."""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from models.core.table import Table
from pipeline.core.settings import Count, EachOnce, Section, entry_of, knob, rare
from pipeline.export.precisions import PRECISIONS, engine_precisions

ENGINE_PRECISIONS = Table("precision of engines", *(PRECISIONS[name] for name in engine_precisions()))
"""The precisions from whose files TensorRT builds engines."""


class ExportTensorrt(Section):
    """The TensorRT engines: their batch profile and build options."""

    precisions: Annotated[
        tuple[Annotated[str, entry_of(ENGINE_PRECISIONS)], ...], Strict(strict=False), Field(min_length=1), EachOnce
    ] = knob(("fp32", "fp16"), "an engine each")
    min_batch: Count = knob(1, "smallest batch that an engine takes")
    opt_batch: Count = knob(8, "batch for which the builder chooses its kernels")
    max_batch: Count = knob(64, "largest batch that an engine takes")
    optimization_level: Annotated[int, Field(ge=0, le=5)] = rare(3, "how long the builder searches for faster kernels")
    workspace_mib: Count = rare(1024, "GPU memory that a layer may use for intermediate results, in MiB")
    version_compatible: bool = rare(
        default=False, description="an engine also runs on later TensorRT versions of the same major"
    )
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = rare(
        "none", "on which other GPUs an engine runs"
    )
    timing_cache: bool = rare(
        default=True, description="keep what the builder measured, for the next build on this GPU"
    )

    @model_validator(mode="after")
    def _batches_in_order(self) -> "ExportTensorrt":
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            got = f"{self.min_batch}, {self.opt_batch}, {self.max_batch}"
            raise ValueError(f"min_batch, opt_batch and max_batch must not decrease, got {got}")
        return self
