"""What is exported: a student with its number of sampling steps fixed."""

import torch
from torch import Tensor, nn

from models.flow import flow_estimates
from models.integrate import step_times
from models.meta_encoders import MetaEncoder
from models.networks import FlowStudent


class UnrolledFlowStudent(nn.Module):
    """A flow student with ``num_steps`` steps; the time embeddings, which depend on the steps alone, are constants.

    Equal to ``student(images, num_steps)``; shares the student's weights.
    """

    time_embeddings: Tensor

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
        with torch.no_grad():
            weight = encoder.time_embedding.project[0].weight
            times = torch.tensor(step_times(num_steps), device=weight.device, dtype=weight.dtype)
            self.register_buffer("time_embeddings", encoder.time_embedding(times))  # (num_steps, C)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        embeddings = iter(self.time_embeddings.split(1))

        def velocity(*, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG001  (the chain calls once a step, in order)
            return self.encoder.velocity_at(x, next(embeddings))

        features = self.trunk(self.normalize(images))
        estimates = flow_estimates(velocity, self.schedule, features, self.num_steps)
        return torch.stack([self.transform(estimate) for estimate in estimates]).mean(dim=0)


def deployable(student: nn.Module, num_steps: int | None) -> nn.Module:
    """Return the network that ships, in eval mode: images to logits, with no other argument.

    ``num_steps`` is None for a student that has no sampling steps.
    """
    if num_steps is None:
        return student.eval()
    assert isinstance(student, FlowStudent)
    return UnrolledFlowStudent(student, num_steps).eval()
