"""What deploys: a student that knows its number of sampling steps, in its general form or a smaller one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .core.numbers import positive, size_of
from .flow import FixedFlow, FlowTransfer, at_each_step, require_flow
from .folding import CollapsedFlow, FoldedFlow, is_collapsible, is_foldable
from .integrate import Trajectory
from .meta_encoder import Conditioning, MetaEncoder
from .narrow_flow import CollapsedNarrowFlow, NarrowFlow
from .students import FlowStudent, SampledStudent

MAX_COLLAPSED_STEPS = 2
"""With more steps the last convolution is too small a part of the whole for its collapse to show."""


class DeployableNetwork(nn.Module, ABC):
    """A trained student with all that decides about its outputs: images (B, 3, H, W) in [0, 1] are its only input."""

    student: nn.Module
    """What was trained."""
    num_steps: int | None
    """K, the number of sampling steps; None of a student that knows none, 0 of one that takes none."""

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Return the answers of the network as it was trained, with which every other form is compared."""

    @abstractmethod
    def general_form(self) -> nn.Module:
        """Return the network that deploys where no smaller form does, in eval mode; it shares the weights."""

    @abstractmethod
    def without_flows(self) -> nn.Module:
        """Return the plain network beside which the cost of sampling steps is seen, in eval mode."""

    def smallest_form(self, image_size: Sequence[int]) -> nn.Module:
        """Return the smallest of ``smaller_forms``, the general form where there are none: what deploys by default."""
        forms = [*self.smaller_forms(image_size, collapse=True).values()]
        return forms[-1]() if forms else self.general_form()

    @abstractmethod
    def smaller_forms(self, image_size: Sequence[int], *, collapse: bool) -> dict[str, Callable[[], nn.Module]]:
        """Return what equals ``general_form`` in a smaller graph: from a rewriting's name to what builds its result.

        They go from the first to the smallest. ``collapse`` asks for the collapse of the last convolution too.
        """


class PlainNetwork(DeployableNetwork):
    """A student without sampling steps."""

    num_steps = None

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Any:
        """Return the student's answers."""
        return self.student(images)

    def general_form(self) -> nn.Module:
        """Return the student."""
        return self.student.eval()

    def without_flows(self) -> nn.Module:
        """Return the student."""
        return self.student.eval()

    def smaller_forms(self, image_size: Sequence[int], *, collapse: bool) -> dict[str, Callable[[], nn.Module]]:  # noqa: ARG002
        """Return none: nothing is left to rewrite."""
        return {}


class SampledNetwork(DeployableNetwork):
    """A student that takes ``num_steps`` sampling steps."""

    def __init__(self, student: SampledStudent, num_steps: int) -> None:
        super().__init__()
        self.student: SampledStudent = student
        self.num_steps: int = num_steps

    def forward(self, images: Tensor) -> Any:
        """Return the student's answers after its steps."""
        return self.student(images, self.num_steps)

    def general_form(self) -> nn.Module:
        """Return the student with its steps unrolled; without a step it is the plain network."""
        return self._with(UnrolledFlow) if self.num_steps else self.without_flows()

    def without_flows(self) -> nn.Module:
        """Return backbone and classifier alone."""
        return self.student.without_flows().eval()

    def smaller_forms(self, image_size: Sequence[int], *, collapse: bool) -> dict[str, Callable[[], nn.Module]]:
        """Return the folded form where every flow folds, and the collapsed one of up to ``MAX_COLLAPSED_STEPS`` steps.

        There are none without a step, for another schedule than rectified flow, a transform that is not linear, or a
        meta-encoder of full width whose last layer is not affine.
        """
        forms: dict[str, Callable[[], nn.Module]] = {}
        if not self.num_steps:
            return forms
        if all(is_foldable(module) for module in self.student.modules() if isinstance(module, FlowTransfer)):
            forms["folded"] = lambda: self._with(folded)
        if not (collapse and self.num_steps <= MAX_COLLAPSED_STEPS and isinstance(self.student, FlowStudent)):
            return forms
        if is_collapsible(self.student.flow):
            with torch.no_grad():
                parameter = next(self.student.parameters())
                size = self.student.features(parameter.new_zeros(1, 3, *image_size)).shape[2:]
            forms["collapsed"] = lambda: self._with(lambda flow, steps: collapse_flow(flow, steps, size))
        return forms

    def _with(self, form: Callable[[FlowTransfer, int], FixedFlow]) -> nn.Module:
        return self.student.with_fixed_flows(lambda flow: form(flow, self.num_steps)).eval()


def folded(flow: FlowTransfer, num_steps: int) -> FixedFlow:
    """Return the folded form of a flow that ``is_foldable``."""
    return NarrowFlow(flow, num_steps) if _is_narrow(flow) else FoldedFlow(flow, num_steps)


def collapse_flow(flow: FlowTransfer, num_steps: int, feature_size: Sequence[int]) -> FixedFlow:
    """Return the collapsed form, for features of ``feature_size`` (H, W), of a flow that ``is_collapsible``."""
    form = CollapsedNarrowFlow if _is_narrow(flow) else CollapsedFlow
    return form(flow, num_steps, feature_size)


def fold(flow: FlowTransfer, num_steps: int, feature_size: Sequence[int]) -> FixedFlow:
    """Return the smallest graph that equals ``flow`` with a fixed number of steps: the form that deploys by default.

    It maps features (B, C, H, W) to what the flow does: logits, or by ``final_state`` the refined features. Of a flow
    that has no smaller form it is the chain with its time embeddings as constants.

    Args:
        num_steps: K; at least 1.
        feature_size: (H, W) of the features.

    Raises:
        ValueError: ``num_steps`` is less than 1, ``feature_size`` no pair, or the velocity of the flow no meta-encoder.
    """
    require_flow(flow)
    if not isinstance(flow.velocity, MetaEncoder):
        got = type(flow.velocity).__name__
        raise ValueError(f"flow: got a velocity that is a {got}; give a flow of build_flow, with a meta-encoder")  # noqa: TRY004
    num_steps, feature_size = positive("num_steps", num_steps), size_of("feature_size", feature_size)
    if num_steps <= MAX_COLLAPSED_STEPS and is_collapsible(flow):
        return collapse_flow(flow, num_steps, feature_size)
    return folded(flow, num_steps) if is_foldable(flow) else UnrolledFlow(flow, num_steps)


def _is_narrow(flow: FlowTransfer) -> bool:
    assert isinstance(flow.velocity, MetaEncoder)
    return flow.velocity.is_narrow


class UnrolledFlow(FixedFlow):
    """A flow of ``num_steps`` steps whose time embeddings, which depend on the steps alone, are constants."""

    def __init__(self, flow: FlowTransfer, num_steps: int) -> None:
        super().__init__()
        encoder = flow.velocity
        assert isinstance(encoder, MetaEncoder)
        self.flow = flow
        self.encoder = encoder
        self.num_steps = num_steps
        with torch.no_grad():
            steps = encoder.condition_steps(num_steps)
        for i, conditioning in enumerate(steps):
            self.register_buffer(f"time_shift_{i}", conditioning.shift)  # (1, C, 1, 1)
            self.register_buffer(f"velocity_norm_{i}", conditioning.norm)  # (1, 1, 1, 1) or None

    def final_state(self, x: Tensor) -> Tensor:
        """Return the last state of the chain from ``x``, shaped like ``x`` (B, ...)."""
        return self._trajectory(x).states[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return mean_i T(X_T_hat_i), the implicit ensemble of the steps, in the teacher's space (B, ...)."""
        return at_each_step(self.flow.transform, self._trajectory(x).estimates).mean(dim=0)

    def _trajectory(self, x: Tensor) -> Trajectory:
        velocity = self.encoder.along(
            Conditioning(getattr(self, f"time_shift_{i}"), getattr(self, f"velocity_norm_{i}"))
            for i in range(self.num_steps)
        )
        return self.flow.trajectory(x, self.num_steps, velocity)


def with_num_steps(student: nn.Module, num_steps: int | None) -> DeployableNetwork:
    """Return ``student`` with ``num_steps`` sampling steps; None for a student that takes none.

    Raises:
        ValueError: the student takes steps and none are given, or fewer than it was trained to take, or the other way
            round.
    """
    if isinstance(student, SampledStudent) and num_steps is not None:
        if num_steps < student.fewest_steps:
            raise ValueError(f"the student takes at least {student.fewest_steps} sampling steps, got {num_steps}")
        return SampledNetwork(student, num_steps)
    if isinstance(student, SampledStudent) or num_steps is not None:
        takes = "takes" if isinstance(student, SampledStudent) else "does not take"
        raise ValueError(f"the student {takes} sampling steps, got num_steps {num_steps}")
    return PlainNetwork(student)


def with_each_num_steps(student: nn.Module, candidates: Sequence[int]) -> list[DeployableNetwork]:
    """Return ``student`` with each of the ``candidates``, ascending; once, and plain, where it knows no steps.

    One that was trained to answer without a step is tried so as well.
    """
    if isinstance(student, SampledStudent):
        tried = {*candidates, *([0] if student.fewest_steps == 0 else [])}
        return [SampledNetwork(student, num_steps) for num_steps in sorted(tried)]
    return [PlainNetwork(student)]


class ByteImages(nn.Module):
    """``network`` with uint8 images, as a camera gives them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return the network's outputs for uint8 images (B, 3, H, W)."""
        return self.network(images.float() / 255)
