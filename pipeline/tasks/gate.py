"""How far what deploys may be from the trained network."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Gate:
    """The bounds of one precision.

    Raises:
        ValueError: a bound makes no sense.
    """

    max_difference: float | None = 1e-4
    """Largest difference of an output, as a share of the spread of an image's outputs; None: any."""
    min_agreement: float = 0.999
    """Share of images with the trained network's answer, within chance."""
    max_drop: float = 0.001
    """Accuracy that may be lost, as a fraction, within chance."""

    def __post_init__(self) -> None:
        if self.max_difference is not None and not 0 < self.max_difference < math.inf:
            raise ValueError(f"max_difference: got {self.max_difference}, expected more than 0, or null")
        if not 0 < self.min_agreement <= 1:
            raise ValueError(f"min_agreement: got {self.min_agreement}, expected more than 0, and at most 1")
        if not 0 <= self.max_drop < math.inf:
            raise ValueError(f"max_drop: got {self.max_drop}, expected 0 or more")

    def for_gpu_kernels(self) -> "Gate":
        """Return the gate for float32 on a GPU, whose kernels sum in other orders than a CPU's: ten times as wide."""
        if self.max_difference is None:
            return self
        return replace(self, max_difference=10 * self.max_difference)


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
