"""Students that take sampling steps: the flow at the logits, or at feature maps on the way."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .backbones.backbone import Backbone
from .classifier import Classifier
from .core.calling import call
from .factory import build_transfer_parts
from .flow import FixedFlow, FlowTransfer, at_each_step, build_flow, build_logit_flow, start_at_rest
from .integrate import Trajectory
from .layers.averaged_heads import AveragedHeads
from .layers.normalize import Normalize
from .layers.shape_transform import LogitTransform
from .meta_encoder import LayerEncoder
from .meta_encoders import META_ENCODERS

FixFlow = Callable[[FlowTransfer], FixedFlow]
"""Returns the form in which a flow deploys."""


class SampledStudent(nn.Module, ABC):
    """A student whose answers depend on a number of sampling steps."""

    fewest_steps: int = 1
    """The smallest number of steps with which it was trained to answer; 0: also as the plain network that it holds."""

    @property
    def end_flow(self) -> FlowTransfer | None:
        """Return the flow whose averaged estimates are the answers, the last of ``trajectories``; None: a head's are.

        What each step leads to is then a member of an ensemble.
        """
        return None

    @abstractmethod
    def forward(self, images: Tensor, num_steps: int) -> Any:
        """Return the answers on images (B, 3, H, W) in [0, 1]; of classification the logits (B, num_classes)."""

    @abstractmethod
    def step_predictions(self, images: Tensor, num_steps: int) -> list[Any]:
        """Return what each of ``num_steps`` steps leads to, as ``forward`` returns it."""

    def combine(self, steps: Sequence[Any]) -> Any:
        """Return the answer of a student that took N steps, given what each of them leads to.

        It is the mean where a flow leads to the answers, the implicit ensemble; else the last, whose state flows on.
        """
        return steps[-1] if self.end_flow is None else torch.stack([*steps]).mean(dim=0)

    @abstractmethod
    def trajectories(self, images: Tensor, num_steps: int) -> list[Trajectory]:
        """Return the trajectory of each flow, in the order in which images pass them."""

    @abstractmethod
    def with_fixed_flows(self, fixed: FixFlow) -> nn.Module:
        """Return the network of the same weights, images to answers, with ``fixed`` of each flow in its place."""

    @abstractmethod
    def without_flows(self) -> nn.Module:
        """Return the plain network of the same weights, images to answers, without the flows."""


class FlowStudent(SampledStudent):
    """Normalisation, backbone, and the flow whose averaged estimates are the logits.

    There is no separate head: the flow's shape transform is the classifier (arXiv 2402.02012, logit-based FM-KT).

    Args:
        tied: whether the classifier was trained to answer without a step too, on the features as they are.
    """

    def __init__(self, normalize: Normalize, backbone: Backbone, flow: FlowTransfer, *, tied: bool = False) -> None:
        super().__init__()
        self.fewest_steps = 0 if tied else 1
        self.normalize = normalize
        self.backbone = backbone
        self.flow = flow

    @property
    def end_flow(self) -> FlowTransfer:
        """Return the one flow."""
        return self.flow

    def features(self, images: Tensor) -> Tensor:
        """Return X_S, the last feature map (B, C, H', W')."""
        return call(self.backbone, self.normalize(images))

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the mean over the steps of their logits (B, num_classes); of no step the classifier's."""
        features = self.features(images)
        return call(self.flow, features, num_steps) if num_steps else call(self.flow.transform, features)

    def step_logits(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the logits (num_steps, B, num_classes) that each step estimates."""
        return self.flow.step_outputs(self.features(images), num_steps)

    def step_predictions(self, images: Tensor, num_steps: int) -> list[Tensor]:
        """Return the logits (B, num_classes) of each step."""
        return list(self.step_logits(images, num_steps))

    def trajectories(self, images: Tensor, num_steps: int) -> list[Trajectory]:
        """Return the trajectory of the one flow."""
        return [self.flow.trajectory(self.features(images), num_steps)]

    def with_fixed_flows(self, fixed: FixFlow) -> nn.Module:
        """Return normalisation, backbone and ``fixed`` of the flow."""
        return nn.Sequential(OrderedDict(normalize=self.normalize, backbone=self.backbone, flow=fixed(self.flow)))

    def without_flows(self) -> nn.Module:
        """Return normalisation, backbone and the flow's classifier, by the names that a plain network has for them."""
        parts = OrderedDict(normalize=self.normalize, backbone=self.backbone, head=self.flow.transform)
        return nn.Sequential(parts)


class RefinedStudent(SampledStudent):
    """A student in which flows refine feature maps on the way."""

    map_name: str = "stage"
    """What returns a feature map."""

    @property
    @abstractmethod
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels of each feature map, refined or not."""

    @property
    @abstractmethod
    def stages(self) -> tuple[int, ...]:
        """Return which maps are refined, counted from 1, in the order in which images pass them."""

    @abstractmethod
    def flow(self, stage: str) -> FlowTransfer:
        """Return the flow at ``stage``, one of ``stages`` in words."""

    @abstractmethod
    def refine(self, images: Tensor, num_steps: int) -> tuple[Any, list[Trajectory]]:
        """Return the answers on images (B, 3, H, W), and ``trajectories``."""

    def trajectories(self, images: Tensor, num_steps: int) -> list[Trajectory]:
        """Return the trajectory of each flow, in the order of ``stages``; behind them that of a flow at the end."""
        return self.refine(images, num_steps)[1]


class FeatureFlowStudent(RefinedStudent):
    """A plain network in which flows refine the feature maps of some stages (feature-based FM-KT).

    The final state takes the place of the stage's feature map and flows on into the next stage.

    Args:
        flows: from the stage, counted from 1, to its flow.
    """

    def __init__(
        self, normalize: Normalize, backbone: Backbone, head: nn.Module, flows: Mapping[int, FlowTransfer]
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.head = head
        self.flows = nn.ModuleDict({str(stage): flow for stage, flow in sorted(flows.items())})

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels that each stage returns."""
        return self.backbone.widths

    @property
    def stages(self) -> tuple[int, ...]:
        """Return the stages that have a flow."""
        return tuple(map(int, self.flows))

    def flow(self, stage: str) -> FlowTransfer:
        """Return the flow at ``stage``, a key of ``flows``."""
        flow = self.flows[stage]
        assert isinstance(flow, FlowTransfer)
        return flow

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        return call(self.head, self._refined(images, lambda stage, x: self.flow(stage).final_state(x, num_steps)))

    def refine(self, images: Tensor, num_steps: int) -> tuple[Tensor, list[Trajectory]]:
        """Return logits (B, num_classes) and the trajectory of each flow, in the order of the stages."""
        features, trajectories = self._followed(images, num_steps, stop=num_steps)
        return call(self.head, features), trajectories

    def _followed(self, images: Tensor, num_steps: int, *, stop: int) -> tuple[Tensor, list[Trajectory]]:
        """Return the last feature map and the trajectory of the flow at each stage.

        The state after ``stop`` of the ``num_steps`` steps flows on.
        """
        trajectories: list[Trajectory] = []

        def refined(stage: str, x: Tensor) -> Tensor:
            trajectories.append(self.flow(stage).trajectory(x, num_steps))
            return trajectories[-1].states[stop]

        return self._refined(images, refined), trajectories

    def _refined(self, images: Tensor, refined: Callable[[str, Tensor], Tensor]) -> Tensor:
        return through_stages(self.normalize(images), self.backbone, set(self.flows), refined)

    def step_predictions(self, images: Tensor, num_steps: int) -> list[Tensor]:
        """Return the logits (B, num_classes) with the state after each step flowing on."""
        stopped = [self._followed(images, num_steps, stop=i + 1)[0] for i in range(num_steps)]
        return [call(self.head, features) for features in stopped]

    def with_fixed_flows(self, fixed: FixFlow) -> nn.Module:
        """Return the network with ``fixed`` of each flow at its stage."""
        return FixedFeatureFlows(
            self.normalize, self.backbone, self.head, {stage: fixed(self.flow(stage)) for stage in self.flows}
        )

    def without_flows(self) -> nn.Module:
        """Return normalisation, backbone and head."""
        return nn.Sequential(OrderedDict(normalize=self.normalize, backbone=self.backbone, head=self.head))


class FeatureAndLogitFlowStudent(FeatureFlowStudent):
    """Flows refine the feature maps of some stages, and one more leads from the last map to the logits.

    All of them take as many steps. What deploys answers with the mean of the last flow's estimates, which starts where
    all steps of the others have led (``dist_pkd`` of the authors' code).

    Args:
        head: the last one, from features to logits.
        flows: from the stage, counted from 1, to its flow.
    """

    head: FlowTransfer

    @property
    def end_flow(self) -> FlowTransfer:
        """Return the flow that leads to the logits."""
        return self.head

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the mean over the steps of the last flow of their logits (B, num_classes)."""
        features = self._refined(images, lambda stage, x: self.flow(stage).final_state(x, num_steps))
        return call(self.head, features, num_steps)

    def refine(self, images: Tensor, num_steps: int) -> tuple[Tensor, list[Trajectory]]:
        """Return the mean of the steps' logits (B, num_classes), and the trajectories, that of the last flow behind."""
        features, trajectories = self._followed(images, num_steps, stop=num_steps)
        trajectories.append(self.head.trajectory(features, num_steps))
        return self._step_logits(trajectories).mean(dim=0), trajectories

    def _step_logits(self, trajectories: Sequence[Trajectory]) -> Tensor:
        return at_each_step(self.head.transform, trajectories[-1].estimates)

    def step_predictions(self, images: Tensor, num_steps: int) -> list[Tensor]:
        """Return the logits (B, num_classes) of each step of the last flow."""
        return list(self._step_logits(self.trajectories(images, num_steps)))

    def with_fixed_flows(self, fixed: FixFlow) -> nn.Module:
        """Return the network with ``fixed`` of each flow at its stage, and of the last one as its head."""
        flows = {stage: fixed(self.flow(stage)) for stage in self.flows}
        return FixedFeatureFlows(self.normalize, self.backbone, fixed(self.head), flows)

    def without_flows(self) -> nn.Module:
        """Return normalisation, backbone and the last flow's classifier."""
        parts = OrderedDict(normalize=self.normalize, backbone=self.backbone, head=self.head.transform)
        return nn.Sequential(parts)


class FixedFeatureFlows(nn.Module):
    """A ``FeatureFlowStudent`` whose flows have a fixed number of steps: images to logits.

    Args:
        head: from the last feature map to logits; where a flow leads there, that.
        flows: from the stage, counted from 1, to its flow.
    """

    def __init__(
        self, normalize: Normalize, backbone: Backbone, head: nn.Module, flows: Mapping[str, FixedFlow]
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.head = head
        self.flows = nn.ModuleDict(flows)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W) in [0, 1]."""
        x = through_stages(self.normalize(images), self.backbone, set(self.flows), self._final_state)
        return call(self.head, x)

    def _final_state(self, stage: str, x: Tensor) -> Tensor:
        flow = self.flows[stage]
        assert isinstance(flow, FixedFlow)
        return flow.final_state(x)


def through_stages(x: Tensor, backbone: Backbone, places: set[str], refined: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Return the last feature map that ``backbone`` makes of normalised images ``x`` (B, 3, H, W).

    At each of ``places``, stages counted from 1, ``refined`` of the stage and its feature map takes that map's place.
    """
    for number, stage in enumerate(backbone.stages(), start=1):
        x = stage(x)
        if str(number) in places:
            x = refined(str(number), x)
    return x


def build_flow_student(
    *,
    backbone: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: Sequence[int] | None = None,
    tied: bool = False,
    **flow: Any,
) -> FlowStudent:
    """Return a logit-based FM-KT student with random weights.

    ``flow`` holds schedule, meta_encoder, time_scale and, where the meta-encoder has one of its own, width. A ``tied``
    one starts with a flow that does not move.

    Raises:
        ValueError: a name is unknown, or the backbone has no feature map.
    """
    stages = build_transfer_parts(backbone, num_classes, image_size).backbone
    transfer = build_logit_flow(channels=stages.channels, num_classes=num_classes, **flow)
    if tied:
        start_at_rest(transfer)
    return FlowStudent(Normalize(mean, std), stages, transfer, tied=tied)


def build_feature_flow_student(
    *,
    backbone: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    stages: Sequence[int],
    widths: Sequence[int | None] | None = None,
    image_size: Sequence[int] | None = None,
    to_logits: bool = False,
    **flow: Any,
) -> FeatureFlowStudent:
    """Return a feature-based FM-KT student with random weights and a flow at each of ``stages``, counted from 1.

    Args:
        widths: that of the meta-encoder at each stage, and behind them that of the flow to the logits, None: as many
            channels as the features; None for all of them so.
        to_logits: whether one more flow leads from the last feature map to the logits, in the place of the head.
        flow: schedule, meta_encoder and time_scale.

    Raises:
        ValueError: a name is unknown, the backbone has no feature map, or no such stage.
    """
    network, head = build_transfer_parts(backbone, num_classes, image_size)
    check_stages(backbone, network, stages)
    channels = [network.widths[stage - 1] for stage in stages]
    own = [*(widths or [None] * (len(stages) + to_logits))]
    last = own.pop() if to_logits else None
    flows = {
        stage: build_flow(channels=count, width=width, transform=nn.Identity(), **flow)
        for stage, count, width in zip(stages, channels, own, strict=True)
    }
    if not to_logits:
        return FeatureFlowStudent(Normalize(mean, std), network, head, flows)
    end = build_logit_flow(channels=network.channels, num_classes=num_classes, width=last, **flow)
    return FeatureAndLogitFlowStudent(Normalize(mean, std), network, end, flows)


def build_layered_classifier(
    *,
    backbone: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    layers: str,
    width: int | None = None,
    image_size: Sequence[int] | None = None,
    bias: bool = False,
    num_heads: int = 1,
) -> Classifier:
    """Return a plain network with random weights whose head begins with a meta-encoder as ordinary layers.

    It is the control for what the meta-encoder's weights alone bring; of several heads for what an ensemble brings.

    Args:
        layers: names the meta-encoder.
        width: its channels; None: those of the backbone's last feature map.
        bias: whether the layers begin with a learned bias, as the flow's time embedding is one.
        num_heads: how many such heads there are, of whose logits the mean counts.

    Raises:
        ValueError: a name is unknown, or the backbone has no feature map to put the layers on.
    """
    network = build_transfer_parts(backbone, num_classes, image_size).backbone
    channels, body = network.channels, META_ENCODERS[layers].load()
    heads = [
        nn.Sequential(
            LayerEncoder(channels, body(width or channels), width=width, bias=bias),
            LogitTransform(channels, num_classes),
        )
        for _ in range(num_heads)
    ]
    head = heads[0] if num_heads == 1 else AveragedHeads(heads)
    return Classifier(network, head, mean=mean, std=std)


def check_stages(name: str, backbone: Backbone, stages: Sequence[int]) -> None:
    """Raise ValueError, with the stages that there are, at the first of ``stages`` that the backbone ``name`` lacks."""
    check_maps(f"backbone {name!r}", backbone.widths, stages)


def check_maps(network: str, widths: Sequence[int], chosen: Sequence[int], *, name: str = "stage") -> None:
    """Raise ValueError at the first of the ``chosen`` feature maps, counted from 1, that a network lacks.

    Args:
        network: what the message calls it.
        widths: the channels of the maps that there are.
        name: of one map.
    """
    for number in chosen:
        if not 1 <= number <= len(widths):
            found = ", ".join(f"{place} ({width} channels)" for place, width in enumerate(widths, start=1))
            raise ValueError(f"{network} has no {name} {number}; its {name}s: {found or 'none'}")
