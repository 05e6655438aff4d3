"""How far what deploys may be from the trained network."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipeline.core.settings import NonNegative, Positive, Section, knob

Agreement = Annotated[float, Field(gt=0, le=1)]


class Gate(Section):
    """The bounds of one precision."""

    max_difference: Positive | None = knob(
        1e-4,
        "largest difference of an output, as a share of the spread of an image's outputs; null: any",
        was=("max_abs_diff", "max_relative_diff"),
    )
    min_agreement: Agreement = knob(
        0.999, "share of images with the trained network's answer, within chance", was="min_top1_agreement"
    )
    max_drop: NonNegative = knob(0.001, "accuracy that may be lost, as a fraction, within chance")

    def for_gpu_kernels(self) -> "Gate":
        """Return the gate for float32 on a GPU, whose kernels sum in other orders than a CPU's: ten times as wide."""
        if self.max_difference is None:
            return self
        return self.model_copy(update={"max_difference": 10 * self.max_difference})


@dataclass(frozen=True)
class PlacedGate:
    """A gate, and what a message says where it is not passed."""

    gate: Gate
    key: str
    """Where its bounds are set: ``export_onnx.gates.fp16``."""
    remedy: str
    """What to do."""

    def refusal(self, found: str, allowed: str, bound: str) -> str:
        """Return the message: what was found, what is allowed by the key ``bound`` of the gate, what to do."""
        return f"{found}; allowed {allowed} ({self.key}.{bound}); {self.remedy}"
