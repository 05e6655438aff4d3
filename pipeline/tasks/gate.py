"""How far what deploys may be from the trained network."""

from typing import Annotated

from pydantic import Field

from pipeline.core.settings import NonNegative, Positive, Section

Agreement = Annotated[float, Field(gt=0, le=1)]


class Gate(Section):
    """The bounds of one precision."""

    max_abs_diff: Positive | None = Field(1e-4, description="largest difference of an output; null: any")
    max_relative_diff: NonNegative = Field(0.0, description="further difference, as a share of the largest output")
    min_top1_agreement: Agreement = Field(1.0, description="share of images with the trained network's answer")
    max_drop: NonNegative = Field(0.0, description="accuracy that may be lost, as a fraction")

    def for_gpu_kernels(self) -> "Gate":
        """Return the gate for float32 on a GPU, whose kernels sum in other orders than a CPU's: ten times as wide."""
        return self if self.max_abs_diff is None else self.model_copy(update={"max_abs_diff": 10 * self.max_abs_diff})

    def for_sample_size(self, count: int) -> "Gate":
        """Return the gate for no more than ``count`` images: where some may get another answer, one may."""
        agreement = min(self.min_top1_agreement, 1 - 1 / count) if self.min_top1_agreement < 1 else 1.0
        drop = max(self.max_drop, 1 / count) if self.max_drop > 0 else 0.0
        return self.model_copy(update={"min_top1_agreement": agreement, "max_drop": drop})
