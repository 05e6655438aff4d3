"""How wide the meta-encoders of a student are: as wide as keeps it small, unless the settings say otherwise.

What a student costs is counted in the form in which it deploys by default, beside the plain student of the same
backbone.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.deploy import SampledNetwork, fold
from models.factory import check_image_size
from models.flow import FixedFlow, FlowTransfer, build_flow
from models.meta_encoder import MetaEncoder
from models.students import SampledStudent
from pipeline.core.errors import UserError, user_error
from pipeline.networks.complexity import count_macs, macs_of
from pipeline.networks.saved import build_network
from pipeline.networks.spec import NetworkSpec

ALLOWED = {1: 1.25, 4: 1.5}
"""From a number of steps to how many times the plain student's multiply-adds a student may take with them."""
AUTO, FULL = "auto", "full"
CPU, META = torch.device("cpu"), torch.device("meta")


class Place(NamedTuple):
    """Where a flow stands in a student."""

    channels: int
    size: tuple[int, ...]
    """Height and width of the feature map."""
    transform: nn.Module
    """From the flow's state to what follows; on the meta device."""


class FlowCost(NamedTuple):
    """What the flows of a student cost in the form in which they deploy."""

    plain: int
    """Multiply-adds of the plain student."""
    ratios: dict[int, float]
    """From a number of steps to how many times as many the student takes with them."""

    @property
    def doubt(self) -> str | None:
        """A line on flows that cost more than is ``ALLOWED``; None where they do not."""
        if all(self.ratios[num_steps] <= most for num_steps, most in ALLOWED.items()):
            return None
        return (
            f"distill_student.flow.width: the student takes {self}; auto keeps it within {_allowed()}, "
            "conv_mobile is the lightest meta_encoder"
        )

    def __str__(self) -> str:
        first, *others = (f"{ratio:.2f}x" for ratio in self.ratios.values())
        steps = [f"K = {num_steps}" for num_steps in self.ratios]
        rest = "".join(f", {ratio} at {step}" for ratio, step in zip(others, steps[1:], strict=True))
        return f"{first} of the plain student's multiply-adds at {steps[0]}{rest}"


def _allowed() -> str:
    return str(FlowCost(0, ALLOWED))


def flow_cost(student: SampledStudent, image_size: Sequence[int]) -> FlowCost:
    """Return what the flows of ``student``, on the CPU, cost with each number of steps of ``ALLOWED``.

    The student is in eval mode from then on.
    """
    plain = count_macs(SampledNetwork(student, 1).without_flows(), image_size, CPU)
    spent = {steps: SampledNetwork(student, steps).smallest_form(image_size) for steps in ALLOWED}
    return FlowCost(plain, {steps: count_macs(form, image_size, CPU) / plain for steps, form in spent.items()})


def describe_widths(student: SampledStudent) -> str:
    """Return the channels of the meta-encoder of each flow, once where all agree: "48 of 256 channels"."""
    words = []
    for flow in (module for module in student.modules() if isinstance(module, FlowTransfer)):
        assert isinstance(flow.velocity, MetaEncoder)
        channels, width = flow.velocity.channels, flow.velocity.width
        words.append(f"all {channels}" if width == channels else f"{width} of {channels}")
    shown = words[:1] if len(set(words)) == 1 else words
    return f"{' and '.join(shown)} channels"


def choose_widths(
    spec: NetworkSpec, image_size: tuple[int, int], wanted: int | str, *, num_flows: int | None = None
) -> list[int | None]:
    """Return the width of the meta-encoder of each flow of the student ``spec``, which says none; None: the full one.

    Of ``auto`` it is the widest with which the student keeps within ``ALLOWED``, each flow with an equal share: the
    full one where that fits, else a multiple of 8, or whatever fits below 8.

    Args:
        num_flows: None: as many as it names stages, or one.

    Raises:
        UserError: no width fits; or the backbone is unknown, has no feature map or stage, or cannot take the images.
    """
    num_flows = num_flows or len(spec.arguments.get("stages", [None]))
    if wanted != AUTO:
        return [None if wanted == FULL else int(wanted)] * num_flows
    with torch.random.fork_rng(devices=[]):  # what is built here to be counted changes no weight that is drawn later
        return _widest_within(spec, image_size, num_flows)


def _widest_within(spec: NetworkSpec, image_size: tuple[int, int], num_flows: int) -> list[int | None]:
    plain, places = _places(spec, image_size, num_flows)
    names = ("schedule", "meta_encoder", "time_scale", "predicts")
    flow = {name: spec.arguments[name] for name in names if name in spec.arguments}
    spare = {steps: (most - 1) * plain / len(places) for steps, most in ALLOWED.items()}

    def fits(place: Place, width: int | None) -> bool:
        return all(_macs_at(place, flow, width, steps) <= most for steps, most in spare.items())

    return [_widest(place, fits, spec.arguments["backbone"], flow["meta_encoder"]) for place in places]


def _widest(place: Place, fits: Callable[[Place, int | None], bool], backbone: str, meta_encoder: str) -> int | None:
    """Return the widest that fits by bisection, for a wider one costs more; raises UserError where none does."""
    if fits(place, None):
        return None
    fewest = 2 if place.size == (1, 1) else 1  # a normalisation needs two values
    candidates: list[int] = [*range(fewest, min(8, place.channels)), *range(8, place.channels, 8)]
    low, high = 0, len(candidates)  # all below low fit, none from high on
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(place, candidates[middle]) else (low, middle)
    if low == 0:
        raise UserError(
            f"distill_student.flow.width: auto finds none, since meta-encoder {meta_encoder} on the {place.channels} "
            f"channels of {backbone} takes the student over {_allowed()} at any width; choose another meta_encoder "
            "(conv_mobile is the lightest), give a width or full, or take method metric, or fm_kt_theta "
            "with theta.tied: false"
        )
    return candidates[low - 1]


def _macs_at(place: Place, flow: dict[str, Any], width: int | None, num_steps: int) -> int:
    """Return the multiply-adds that a flow adds to the plain student."""
    with META:
        built = build_flow(channels=place.channels, width=width, transform=copy.deepcopy(place.transform), **flow)
        x = torch.empty(1, place.channels, *place.size)
    return macs_of(fold(built, num_steps, place.size), x) - macs_of(place.transform, x)


def _places(spec: NetworkSpec, image_size: tuple[int, int], num_flows: int) -> tuple[int, list[Place]]:
    """Return the multiply-adds of the plain student and the place of each flow."""
    narrow = {"widths": [1] * num_flows} if "stages" in spec.arguments else {"width": 1}
    with user_error("distill_student.backbone"):
        student = build_network(spec._replace(arguments=spec.arguments | narrow))
        assert isinstance(student, SampledStudent)
        places: list[Place] = []
        check_image_size(student.with_fixed_flows(lambda flow: _Passed(flow, places)), image_size)
    return count_macs(SampledNetwork(student, 1).without_flows(), image_size, CPU), places


class _Passed(FixedFlow):
    """Stands in a flow's place, changes nothing, and notes in ``places`` what passes."""

    def __init__(self, flow: FlowTransfer, places: list[Place]) -> None:
        super().__init__()
        self.transform = flow.transform
        self.places = places

    def final_state(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W)."""
        self.places.append(Place(x.shape[1], tuple(x.shape[2:]), copy.deepcopy(self.transform).to(META)))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return T(x) in the teacher's space (B, ...)."""
        output: Tensor = self.transform(self.final_state(x))
        return output
