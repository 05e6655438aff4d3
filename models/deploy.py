"""What is exported: a student with its number of sampling steps fixed."""

import torch
from torch import Tensor, nn

from models.flow import flow_step_outputs
from models.flow_student import FlowStudent
from models.integrate import step_times
from models.meta_encoders import MetaEncoder


class UnrolledFlowStudent(nn.Module):
    """A flow student with ``num_steps`` steps; the time embeddings, which depend on the steps alone, are constants.

    Equal to ``student(images, num_steps)``; shares the student's weights.
    """

    def __init__(self, student: FlowStudent, num_steps: int) -> None:
        super().__init__()
        encoder = student.flow.velocity
        assert isinstance(encoder, MetaEncoder)
        self.normalize = student.normalize
        self.trunk = student.trunk
        self.encoder = encoder
        self.schedule = student.flow.schedule
        self.transform = student.flow.transform
        self.num_steps = num_steps
        weight = next(encoder.parameters())
        for i, time in enumerate(step_times(num_steps)):
            with torch.no_grad():
                embedding = encoder.embed(weight.new_full((1,), time))  # (1, C, 1, 1)
            self.register_buffer(f"time_embedding_{i}", embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        embeddings = (self.get_buffer(f"time_embedding_{i}") for i in range(self.num_steps))

        def velocity(*, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG001  (the chain calls once a step, in order)
            return self.encoder.velocity_at(x, next(embeddings))

        features = self.trunk(self.normalize(images))
        steps = flow_step_outputs(velocity, self.schedule, self.transform, features, self.num_steps)
        return torch.stack(steps).mean(dim=0)


def deployable(student: nn.Module, num_steps: int | None) -> nn.Module:
    """Return the network that ships, in eval mode: images to logits, with no other argument.

    ``num_steps`` is None for a student that has no sampling steps.
    """
    if num_steps is None:
        return student.eval()
    assert isinstance(student, FlowStudent)
    return UnrolledFlowStudent(student, num_steps).eval()
