"""Students that take sampling steps: the flow at the logits, or at feature maps on the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.backbones.trunk import Trunk
from models.factory import build_transfer_parts
from models.flow import FlowPath, FlowTransfer, build_flow, build_logit_flow
from models.normalize import Normalize


class SampledStudent(nn.Module):
    """A student whose logits depend on a number of sampling steps."""

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def step_logits(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the logits (num_steps, B, num_classes) that each step leads to."""
        raise NotImplementedError

    def combine(self, steps: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of a student that took N steps, given those of each, (N, B, classes)."""
        raise NotImplementedError

    def paths(self, images: Tensor, num_steps: int) -> list[FlowPath]:
        """Return the walk of each flow."""
        raise NotImplementedError

    def with_flows(self, changed: Callable[[FlowTransfer], FlowTransfer]) -> Self:
        """Return a student of the same weights with ``changed`` of each flow in its place."""
        raise NotImplementedError


class FlowStudent(SampledStudent):
    """Normalisation, feature trunk, and the flow whose averaged estimates are the logits.

    There is no separate head: the flow's shape transform is the classifier (arXiv 2402.02012, logit-based FM-KT).
    """

    def __init__(self, normalize: Normalize, trunk: Trunk, flow: FlowTransfer) -> None:
        super().__init__()
        self.normalize = normalize
        self.trunk = trunk
        self.flow = flow

    def features(self, images: Tensor) -> Tensor:
        """Return X_S, the last feature map (B, C, H', W')."""
        return self.trunk(self.normalize(images))  # type: ignore[no-any-return]

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the mean over the steps of their logits (B, num_classes)."""
        return self.flow(self.features(images), num_steps)  # type: ignore[no-any-return]

    def step_logits(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the logits (num_steps, B, num_classes) that each step estimates."""
        return self.flow.step_outputs(self.features(images), num_steps)

    def combine(self, steps: Tensor) -> Tensor:
        """Return the mean over the steps: the implicit ensemble."""
        return steps.mean(dim=0)

    def paths(self, images: Tensor, num_steps: int) -> list[FlowPath]:
        """Return the walk of the one flow."""
        return [self.flow.walk(self.features(images), num_steps)]

    def with_flows(self, changed: Callable[[FlowTransfer], FlowTransfer]) -> Self:
        """Return a student of the same weights with ``changed`` of the flow in its place."""
        return type(self)(self.normalize, self.trunk, changed(self.flow))


class FeatureFlowStudent(SampledStudent):
    """A plain network in which flows refine the feature maps of some stages (feature-based FM-KT).

    The state after the last step takes the place of the stage's feature map and flows on into the next stage.

    Args:
        flows: from the stage, counted from 1, to its flow.
    """

    def __init__(self, normalize: Normalize, trunk: Trunk, head: nn.Module, flows: Mapping[int, FlowTransfer]) -> None:
        super().__init__()
        self.normalize = normalize
        self.trunk = trunk
        self.head = head
        self.flows = nn.ModuleDict({str(stage): flow for stage, flow in sorted(flows.items())})

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        return self._through(images, lambda flow, x: flow.end(x, num_steps))

    def walk(self, images: Tensor, num_steps: int, *, stop: int) -> tuple[Tensor, list[FlowPath]]:
        """Return logits (B, num_classes) and the walk of each flow, in the order of the stages.

        The state after ``stop`` of the ``num_steps`` steps flows on.
        """
        paths: list[FlowPath] = []

        def refined(flow: FlowTransfer, x: Tensor) -> Tensor:
            paths.append(flow.walk(x, num_steps))
            return paths[-1].states[stop]

        return self._through(images, refined), paths

    def _through(self, images: Tensor, refined: Callable[[FlowTransfer, Tensor], Tensor]) -> Tensor:
        """Return the logits with ``refined`` of a flow and its stage's feature map in the place of that map."""
        x = self.normalize(images)
        for number, stage in enumerate(self.trunk.stages(), start=1):
            x = stage(x)
            if str(number) in self.flows:
                flow = self.flows[str(number)]
                assert isinstance(flow, FlowTransfer)
                x = refined(flow, x)
        return self.head(x)  # type: ignore[no-any-return]

    def step_logits(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the logits (num_steps, B, num_classes) with the state after each step flowing on."""
        return torch.stack([self.walk(images, num_steps, stop=i + 1)[0] for i in range(num_steps)])

    def combine(self, steps: Tensor) -> Tensor:
        """Return the last: its state is what flows on."""
        return steps[-1]

    def paths(self, images: Tensor, num_steps: int) -> list[FlowPath]:
        """Return the walk of each flow, in the order of the stages."""
        return self.walk(images, num_steps, stop=num_steps)[1]

    def with_flows(self, changed: Callable[[FlowTransfer], FlowTransfer]) -> Self:
        """Return a student of the same weights with ``changed`` of each flow in its place."""
        flows = {int(stage): changed(flow) for stage, flow in self.flows.items()}  # type: ignore[arg-type]
        return type(self)(self.normalize, self.trunk, self.head, flows)


def build_flow_student(
    *, backbone: str, num_classes: int, mean: Sequence[float], std: Sequence[float], **flow: Any
) -> FlowStudent:
    """Return a logit-based FM-KT student with random weights.

    ``flow`` holds schedule, meta_encoder and time_scale.

    Raises:
        ValueError: a name is unknown, or the backbone has no feature map.
    """
    trunk = build_transfer_parts(backbone, num_classes).trunk
    transfer = build_logit_flow(channels=trunk.channels, num_classes=num_classes, **flow)
    return FlowStudent(Normalize(mean, std), trunk, transfer)


def build_feature_flow_student(
    *,
    backbone: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    stages: Sequence[int],
    **flow: Any,
) -> FeatureFlowStudent:
    """Return a feature-based FM-KT student with random weights and a flow at each of ``stages``, counted from 1.

    ``flow`` holds schedule, meta_encoder and time_scale.

    Raises:
        ValueError: a name is unknown, the backbone has no feature map, or no such stage.
    """
    trunk, head = build_transfer_parts(backbone, num_classes)
    check_stages(backbone, trunk, stages)
    flows = {stage: build_flow(channels=trunk.widths[stage - 1], transform=nn.Identity(), **flow) for stage in stages}
    return FeatureFlowStudent(Normalize(mean, std), trunk, head, flows)


def check_stages(backbone: str, trunk: Trunk, stages: Sequence[int]) -> None:
    """Raise ValueError, with the stages that there are, at the first of ``stages`` that ``trunk`` lacks."""
    for stage in stages:
        if not 1 <= stage <= len(trunk.widths):
            found = ", ".join(f"{number} ({width} channels)" for number, width in enumerate(trunk.widths, start=1))
            raise ValueError(f"backbone {backbone!r} has no stage {stage}; its stages: {found or 'none'}")
