"""What is exported: a student with its number of sampling steps fixed, in its general form or a smaller one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.flow import FlowTransfer
from models.flow_student import FeatureFlowStudent, FlowStudent, SampledStudent
from models.folding import CollapsedFlow, FoldedFlow, is_collapsible, is_foldable
from models.integrate import Velocity
from models.meta_encoders import Conditioning, MetaEncoder

MAX_COLLAPSED_STEPS = 2
"""With more steps the last convolution is too small a part of the whole for its collapse to show."""


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
    """A student with its number of steps fixed: images to logits, with no other argument.

    Args:
        form: what takes the place of each flow.
    """

    def __init__(
        self, student: SampledStudent, num_steps: int, form: Callable[[FlowTransfer, int], FlowTransfer] = UnrolledFlow
    ) -> None:
        super().__init__()
        self.student = student.with_flows(lambda flow: form(flow, num_steps))
        self.num_steps = num_steps

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        return self.student(images, self.num_steps)  # type: ignore[no-any-return]


class ByteImages(nn.Module):
    """``network`` with uint8 images, as a camera gives them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of uint8 images (B, 3, H, W)."""
        return self.network(images.float() / 255)  # type: ignore[no-any-return]


def deployable(student: nn.Module, num_steps: int | None) -> nn.Module:
    """Return the network that ships in its general form, in eval mode: images to logits, with no other argument.

    ``num_steps`` is None for a student that has no sampling steps.
    """
    if num_steps is None:
        return student.eval()
    assert isinstance(student, SampledStudent)
    return FixedSteps(student, num_steps).eval()


def without_steps(student: nn.Module) -> nn.Module:
    """Return the plain network beside which the cost of sampling steps is seen: backbone and classifier, no steps."""
    if isinstance(student, FlowStudent):
        return nn.Sequential(student.normalize, student.trunk, student.flow.transform).eval()
    if isinstance(student, FeatureFlowStudent):
        return nn.Sequential(student.normalize, student.trunk, student.head).eval()
    return student.eval()


def smaller_forms(
    student: nn.Module, num_steps: int | None, *, image_size: Sequence[int], collapse: bool
) -> dict[str, Callable[[], nn.Module]]:
    """Return what equals ``deployable`` in a smaller graph: from the name of a rewriting to what builds its result.

    They go from the first to the smallest; there are none for a student without steps, another schedule than rectified
    flow, or a transform that is not linear. ``collapse`` asks for the collapse of the last convolution too, where there
    are at most ``MAX_COLLAPSED_STEPS`` steps.
    """
    if num_steps is None:
        return {}
    assert isinstance(student, SampledStudent)
    steps, sampled = num_steps, student
    forms: dict[str, Callable[[], nn.Module]] = {}
    if all(is_foldable(module) for module in student.modules() if isinstance(module, FlowTransfer)):
        forms["folded"] = lambda: FixedSteps(sampled, steps, FoldedFlow).eval()
    if not (collapse and steps <= MAX_COLLAPSED_STEPS and isinstance(student, FlowStudent)):
        return forms
    if is_collapsible(student.flow):
        with torch.no_grad():
            parameter = next(student.parameters())
            size = student.features(parameter.new_zeros(1, 3, *image_size)).shape[2:]
        forms["collapsed"] = lambda: FixedSteps(
            sampled, steps, lambda flow, count: CollapsedFlow(flow, count, size)
        ).eval()
    return forms
