"""Detectors in which flows, or the same layers without a flow, refine the levels of the pyramid."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ..backbones.backbone import Backbone
from ..core.calling import call
from ..flow import FixedFlow, FlowTransfer, build_flow
from ..integrate import Trajectory
from ..layers.normalize import Normalize
from ..meta_encoder import LayerEncoder
from ..meta_encoders import META_ENCODERS, InitialWeights, Predicts
from ..students import FixFlow, RefinedStudent, check_maps
from .building import build_detector
from .detector import Detector, pyramid_levels
from .places import Places


class FlowDetector(RefinedStudent):
    """A detector in which a flow refines each of some levels (feature-based FM-KT on a pyramid).

    The final state takes the place of the level and goes to the head.

    Args:
        flows: from the level, counted from 1, to its flow.
    """

    map_name = "level"

    def __init__(self, detector: Detector, flows: Mapping[int, FlowTransfer]) -> None:
        super().__init__()
        self.normalize: Normalize = detector.normalize
        self.backbone: Backbone = detector.backbone
        self.levels = detector.levels
        self.pyramid: FeaturePyramidNetwork = detector.pyramid
        self.head: nn.Module = detector.head
        self.places: Places = detector.places
        self.flows = nn.ModuleDict({str(level): flow for level, flow in sorted(flows.items())})

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels of each level."""
        return (self.places.rules.settings.width,) * len(self.places.strides)

    @property
    def stages(self) -> tuple[int, ...]:
        """Return the levels that have a flow."""
        return tuple(map(int, self.flows))

    def flow(self, level: str) -> FlowTransfer:
        """Return the flow at ``level``, a key of ``flows``."""
        flow = self.flows[level]
        assert isinstance(flow, FlowTransfer)
        return flow

    def forward(self, images: Tensor, num_steps: int) -> Any:
        """Return what is answered at all places on images (B, 3, H, W) in [0, 1]."""
        return self._answered(self._levels(images), lambda level, x: self.flow(level).final_state(x, num_steps))

    def refine(self, images: Tensor, num_steps: int) -> tuple[Any, list[Trajectory]]:
        """Return what is answered, and the trajectory of each flow, in the order of the levels."""
        levels = self._levels(images)
        trajectories = self._trajectories(levels, num_steps)
        return self._stopped(levels, trajectories, num_steps), trajectories

    def step_predictions(self, images: Tensor, num_steps: int) -> list[Any]:
        """Return what is answered with the state after each step going to the head."""
        levels = self._levels(images)
        trajectories = self._trajectories(levels, num_steps)
        return [self._stopped(levels, trajectories, stop) for stop in range(1, num_steps + 1)]

    def trajectories(self, images: Tensor, num_steps: int) -> list[Trajectory]:
        """Return the trajectory of each flow, in the order of the levels."""
        return self._trajectories(self._levels(images), num_steps)

    def with_fixed_flows(self, fixed: FixFlow) -> nn.Module:
        """Return the detector with ``fixed`` of each flow at its level."""
        return RefinedDetector(self.without_flows(), {level: fixed(self.flow(level)) for level in self.flows})

    def without_flows(self) -> Detector:
        """Return the plain detector."""
        return Detector(self.normalize, self.backbone, self.levels, self.pyramid, self.head, self.places)

    def _levels(self, images: Tensor) -> list[Tensor]:
        return pyramid_levels(self.normalize(images), self.backbone, self.levels, self.pyramid)

    def _trajectories(self, levels: Sequence[Tensor], num_steps: int) -> list[Trajectory]:
        return [self.flow(level).trajectory(levels[int(level) - 1], num_steps) for level in self.flows]

    def _stopped(self, levels: Sequence[Tensor], trajectories: Sequence[Trajectory], stop: int) -> Any:
        """Return what is answered with the states after ``stop`` steps."""
        states = {level: path.states[stop] for level, path in zip(self.flows, trajectories, strict=True)}
        return self._answered(levels, lambda level, _: states[level])

    def _answered(self, levels: Sequence[Tensor], refined: Callable[[str, Tensor], Tensor]) -> Any:
        return self.places.rules.answered(self.head, refined_levels(levels, set(self.flows), refined), self.places)


class RefinedDetector(Detector):
    """A detector some of whose levels pass what refines them: flows of a fixed number of steps, or layers.

    Args:
        refiners: from the level, counted from 1, to what refines it.
    """

    def __init__(self, detector: Detector, refiners: Mapping[str, nn.Module]) -> None:
        super().__init__(
            detector.normalize,
            detector.backbone,
            detector.levels,
            detector.pyramid,
            detector.head,
            detector.places,
        )
        self.refiners = nn.ModuleDict(refiners)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the refined levels, finest first, (B, C, H', W') each."""
        return refined_levels(super().feature_maps(images), set(self.refiners), self._refined)

    def _refined(self, level: str, x: Tensor) -> Tensor:
        refiner = self.refiners[level]
        return refiner.final_state(x) if isinstance(refiner, FixedFlow) else call(refiner, x)


def refined_levels(
    levels: Sequence[Tensor], places: set[str], refined: Callable[[str, Tensor], Tensor]
) -> list[Tensor]:
    """Return ``levels``, of which each of ``places``, counted from 1, has been ``refined``."""
    return [refined(str(i), x) if str(i) in places else x for i, x in enumerate(levels, start=1)]


def build_flow_detector(
    *,
    stages: Sequence[int],
    schedule: str,
    meta_encoder: str,
    time_scale: float,
    predicts: Predicts = "velocity",
    initial_weights: InitialWeights = "pytorch",
    widths: Sequence[int | None] | None = None,
    **detector: Any,
) -> FlowDetector:
    """Return a detector with random weights and a flow at each of the levels ``stages``, counted from 1.

    Args:
        widths: that of the meta-encoder at each of them, None: the level's own; None for all of them so.
        detector: the arguments of ``build_detector``.

    Raises:
        ValueError: a name is unknown, there is no such level, or as ``build_detector``.
    """
    network = build_detector(**detector)
    check_maps("the pyramid", network.map_widths, stages, name="level")
    flows = {
        level: build_flow(
            channels=network.map_widths[level - 1],
            width=width,
            transform=nn.Identity(),
            schedule=schedule,
            meta_encoder=meta_encoder,
            time_scale=time_scale,
            predicts=predicts,
            initial_weights=initial_weights,
        )
        for level, width in zip(stages, widths or [None] * len(stages), strict=True)
    }
    return FlowDetector(network, flows)


def build_layered_detector(
    *,
    layers: str,
    stages: Sequence[int],
    widths: Sequence[int | None] | None = None,
    bias: bool = False,
    **detector: Any,
) -> RefinedDetector:
    """Return a detector with random weights whose levels ``stages`` pass a meta-encoder as an ordinary layer.

    It is the control for what the meta-encoders' weights alone bring.

    Args:
        layers: names the meta-encoder.
        widths: its channels at each of the levels, None: the level's own; None for all of them so.
        bias: whether each begins with a learned bias, as a flow's time embedding is one.
        detector: the arguments of ``build_detector``.

    Raises:
        ValueError: a name is unknown, there is no such level, or as ``build_detector``.
    """
    network = build_detector(**detector)
    check_maps("the pyramid", network.map_widths, stages, name="level")
    body = META_ENCODERS[layers].load()
    encoders = {
        str(level): LayerEncoder(channels, body(width or channels), width=width, bias=bias)
        for level, width in zip(stages, widths or [None] * len(stages), strict=True)
        for channels in [network.map_widths[level - 1]]
    }
    return RefinedDetector(network, encoders)
