"""The exact likelihood of the continuous flow at feature maps, beside the bound of the chain that deploys.

Where student and teacher have maps of one shape, the transform T between them is a square matrix at each place, and the
flow that the meta-encoder's velocity makes in continuous time has a density (``models.likelihood``). With x the
teacher's map, each channel over its standard deviation s_c, and W the matrix of T:

    -log p(x | X_S) = -log p_0(T^-1(s x) | X_S) + H W log |det W| - H W sum_c log s_c

so that it compares with the bound of the same row. A chain sees few of the times and none of the states from which the
teacher's map is taken back: the figure says how far the velocity field is one flow, not what deploys.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from models.flow import FlowTransfer
from models.layers.shape_transform import FeatureTransform
from models.likelihood import Carried, carried_to_source, gaussian_figures
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.traced_flows import TracedFlows

CONTINUOUS = ("continuous", "continuous_images")
"""Columns: nats per image, and of how many test images that is the mean."""
MOST_IMAGES, LEAST_IMAGES = 32, 4
MOST_VALUES = 2**20
"""Of all maps together: a path takes 64 evaluations of the velocity and as many of its gradient."""
RK4_STEPS = 16
SINGULAR = 1e-6
"""Least singular value of T, beside its largest one, with which it can be taken back in float32."""


class Back(NamedTuple):
    """The way back from the teacher's space to the student's, at each place."""

    matrix: Tensor
    """W^-1, (C, C), float64."""
    bias: Tensor
    """Of T, (C, 1, 1), float64."""
    log_determinant: float
    """log |det W|."""

    def __call__(self, target: Tensor) -> Tensor:
        """Return T^-1 of ``target`` (B, C, H, W), in its own type."""
        return torch.einsum("dc,bchw->bdhw", self.matrix, target.double() - self.bias).to(target)


class ContinuousLikelihood:
    """What the continuous flows of a trained student say of their teacher's feature maps.

    Args:
        scales: from the flow's name to the standard deviations of the teacher's channels, (C, 1, 1).
    """

    def __init__(
        self, flows: TracedFlows, teacher: FrozenTeacher, scales: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self.flows = flows
        self.teacher = teacher
        self.scales = scales
        self.device = device
        self._known: dict[str, tuple[Tensor, dict[str, float | int]]] = {}

    def figures(self, flow: str, num_steps: int, *, calib: Split, test: Split) -> dict[str, float | int]:
        """Return the ``CONTINUOUS`` columns of a flow, of a student that takes ``num_steps``; {} where there are none.

        There are none at the logits, where maps differ in shape or T cannot be taken back, of a schedule whose ends are
        not X_S and X_T themselves, and of maps so large that too few would fit in what it may cost.

        Args:
            calib: images on which the noise around X_S is fitted.
            test: those of which the figure is.
        """
        position = list(self.flows.names).index(flow)
        transform, moves = self.flows.transforms[position], self.flows.flows[position]
        if num_steps == 0 or not isinstance(transform, FeatureTransform) or not has_both_ends(moves):
            return {}
        sources, targets = self._ends(position, num_steps, test.spread(1))
        back = _way_back(transform) if sources.shape == targets.shape else None
        count = min(MOST_IMAGES, MOST_VALUES // sources.numel())
        if back is None or min(count, len(calib), len(test)) < LEAST_IMAGES:
            return {}
        sources, targets = self._ends(position, num_steps, test.spread(count))
        if flow in self._known and torch.equal(self._known[flow][0], sources):
            return self._known[flow][1]  # where no flow stands before it, X_S is one for all numbers of steps
        place = targets.shape[2] * targets.shape[3]
        constant = place * (back.log_determinant - float(self.scales[flow].double().log().sum()))
        own, wanted = self._ends(position, num_steps, calib.spread(count))
        state, _ = _carried(moves, own, back(wanted))
        variance = max(float((state - own).double().square().mean()), torch.finfo(torch.float32).tiny)
        state, change = _carried(moves, sources, back(targets))
        nll = gaussian_figures(sources, state[None], variance=variance, dims=sources[0].numel()).bound
        mean = float((nll - change.double()).mean()) + constant
        found: dict[str, float | int] = {}
        if math.isfinite(mean):
            found = dict(zip(CONTINUOUS, (mean, len(sources)), strict=True))
        self._known[flow] = sources, found
        return found

    @torch.no_grad()
    def _ends(self, position: int, num_steps: int, split: Split) -> tuple[Tensor, Tensor]:
        """Return X_S and X_T of a flow on all images of ``split``, (B, ...) each."""
        compared = [i for i, transform in enumerate(self.flows.transforms) if transform is not None]
        sources, targets = [], []
        for batch in ordered_batches(split, MOST_IMAGES, self.device):
            sources.append(self.flows.student.trajectories(batch.images, num_steps)[position].states[0])
            targets.append(self.teacher(batch.images)[compared.index(position)])
        return torch.cat(sources), torch.cat(targets)


def has_both_ends(flow: FlowTransfer) -> bool:
    """Return whether the path of ``flow`` starts at X_S itself and ends at X_T itself."""
    ends = [flow.schedule.weights_at(time) for time in (1.0, 0.0)]
    return [(weights.alpha, weights.sigma) for weights in ends] == [(1, 0), (0, 1)]


def _way_back(transform: FeatureTransform) -> Back | None:
    """Return the inverse of ``transform``, which changes no shape; None where it is as good as singular."""
    weight = transform.project.weight.detach()[:, :, 0, 0].double()
    values = torch.linalg.svdvals(weight)
    if not values[-1] > SINGULAR * values[0]:
        return None
    assert transform.project.bias is not None
    bias = transform.project.bias.detach().double()[:, None, None]
    return Back(torch.linalg.inv(weight), bias, float(torch.linalg.slogdet(weight).logabsdet))


def _carried(flow: FlowTransfer, sources: Tensor, x: Tensor) -> Carried:
    """Return where the continuous flow takes ``x`` (B, C, H, W), and how it changes volumes; one draw of probes."""
    generator = torch.Generator(x.device).manual_seed(0)
    return carried_to_source(flow.field(sources), x, num_steps=RK4_STEPS, generator=generator)
