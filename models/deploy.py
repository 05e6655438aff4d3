"""What is exported: a student with its number of sampling steps fixed."""

import torch
from torch import Tensor, nn

from models.flow import FlowTransfer
from models.flow_student import SampledStudent
from models.integrate import Velocity
from models.meta_encoders import Conditioning, MetaEncoder


class UnrolledFlow(FlowTransfer):
    """A flow of ``num_steps`` steps whose time embeddings, which depend on the steps alone, are constants.

    Shares the weights of ``flow``.
    """

    def __init__(self, flow: FlowTransfer, num_steps: int) -> None:
        assert isinstance(flow.velocity, MetaEncoder)
        super().__init__(velocity=flow.velocity, schedule=flow.schedule, transform=flow.transform)
        self.encoder = flow.velocity
        self.num_steps = num_steps
        with torch.no_grad():
            steps = flow.velocity.condition_steps(num_steps)
        for i, conditioning in enumerate(steps):
            self.register_buffer(f"time_shift_{i}", conditioning.shift)  # (1, C, 1, 1)
            self.register_buffer(f"velocity_norm_{i}", conditioning.norm)  # (1, 1, 1, 1) or None

    def field(self, num_steps: int) -> Velocity:
        """Return the velocity of one walk of ``num_steps`` steps."""
        assert num_steps == self.num_steps
        return self.encoder.along(
            Conditioning(getattr(self, f"time_shift_{i}"), getattr(self, f"velocity_norm_{i}"))
            for i in range(num_steps)
        )


class FixedSteps(nn.Module):
    """A student with its number of steps fixed: images to logits, with no other argument."""

    def __init__(self, student: SampledStudent, num_steps: int) -> None:
        super().__init__()
        self.student = student.with_flows(lambda flow: UnrolledFlow(flow, num_steps))
        self.num_steps = num_steps

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        return self.student(images, self.num_steps)  # type: ignore[no-any-return]


def deployable(student: nn.Module, num_steps: int | None) -> nn.Module:
    """Return the network that ships, in eval mode: images to logits, with no other argument.

    ``num_steps`` is None for a student that has no sampling steps.
    """
    if num_steps is None:
        return student.eval()
    assert isinstance(student, SampledStudent)
    return FixedSteps(student, num_steps).eval()
