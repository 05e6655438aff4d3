"""Theorem 3.1 as figures of a trained student: how likely its flows make what the teacher says, by number of steps.

See ``models.likelihood``. The noise is fitted on the calibration split, the figures are of any split.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.flow import at_each_step
from models.likelihood import categorical_figures, centred, gaussian_figures, squared_errors
from models.students import FlowStudent
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.traced_flows import TracedFlows
from pipeline.evaluation.continuous import CONTINUOUS

Row = dict[str, Any]
COLUMNS = (
    "flow", "num_steps", "dims", "bound", "bound_bits", "mixture", "ensemble", "diversity", "trivial", "entropy",
    "categorical_ensemble", "categorical_bound", *CONTINUOUS,
)  # fmt: skip
"""Of ``FlowLikelihood.rows``: nats per image, ``bound_bits`` bits per dimension; ``entropy`` and the categorical ones
are of logits alone, the last two of feature maps (``pipeline.evaluation.continuous``)."""


class Noise(NamedTuple):
    """What is fitted of one flow on the calibration split."""

    mean: Tensor
    """Of the teacher's targets, (...): what the trivial predictor says of every image."""
    scale: Tensor
    """By which a target's channels are divided: their standard deviations, (C, 1, 1); of logits 1.

    Infinite where the teacher says the same of every image: such a channel has no density, and is left out.
    """
    dims: int
    """d, in which a target can differ from an estimate, and counts."""
    variance: Mapping[int, float]
    """s_K^2 of each number of steps."""
    trivial: float
    """s^2 of the trivial predictor."""


class FlowLikelihood:
    """What the flows of a trained student say of their teacher's answers.

    Args:
        flows: which; those that are not compared with the teacher are left out.
        teacher: returns the target of each.
        batch_size: of images at a time.
    """

    def __init__(self, flows: TracedFlows, teacher: FrozenTeacher, batch_size: int, device: torch.device) -> None:
        self.flows = flows
        self.teacher = teacher
        self.batch_size = batch_size
        self.device = device
        for module in (flows.student, *filter(None, flows.transforms)):
            module.eval().to(device)

    @torch.no_grad()
    def fit(self, split: Split, candidates: Sequence[int]) -> dict[str, Noise]:
        """Return the noise of each flow, fitted on ``split`` for each number of steps of ``candidates``."""
        moments: dict[str, Tensor] = {}
        for images in self._images(split):
            for name, target in self._targets(images):
                found = torch.stack([target.sum(dim=0), target.square().sum(dim=0)]) / len(split)
                moments[name] = moments.get(name, torch.zeros_like(found)) + found
        fitted = {name: _fitted(mean, squares) for name, (mean, squares) in moments.items()}
        errors: dict[tuple[str, int], float] = {}
        for images in self._images(split):
            for name, num_steps, target, steps in self._compared(images, candidates, fitted):
                spent = float(squared_errors(target, steps).mean(dim=0).sum())
                errors[name, num_steps] = errors.get((name, num_steps), 0.0) + spent
        return {
            name: noise._replace(
                variance={k: max(errors[name, k] / (len(split) * noise.dims), MIN_VARIANCE) for k in candidates}
            )
            for name, noise in fitted.items()
        }

    @torch.no_grad()
    def rows(self, split: Split, noise: Mapping[str, Noise]) -> list[Row]:
        """Return a row (see ``COLUMNS``) for each flow and number of steps that ``noise`` was fitted for."""
        candidates = sorted(next(iter(noise.values())).variance) if noise else []
        sums: dict[tuple[str, int], dict[str, float]] = {}
        for images in self._images(split):
            for name, num_steps, target, steps in self._compared(images, candidates, noise):
                row = sums.setdefault((name, num_steps), {})
                for key, value in _figures(target, steps, noise[name], num_steps).items():
                    row[key] = row.get(key, 0.0) + float(value.sum()) / len(split)
        return [
            {
                "flow": name,
                "num_steps": num_steps,
                "dims": noise[name].dims,
                **figures,
                "bound_bits": figures["bound"] / (noise[name].dims * math.log(2)),
            }
            for (name, num_steps), figures in sums.items()
        ]

    def _images(self, split: Split) -> Iterator[Tensor]:
        for batch in ordered_batches(split, self.batch_size, self.device):
            yield batch.images

    def _targets(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each compared flow's name and target (B, ...); logits centred."""
        targets = iter(self.teacher(images))
        for name, transform in zip(self.flows.names, self.flows.transforms, strict=True):
            if transform is not None:
                target = next(targets)
                yield name, centred(target) if target.dim() == 2 else target.double()

    def _compared(
        self, images: Tensor, candidates: Sequence[int], noise: Mapping[str, Noise]
    ) -> Iterator[tuple[str, int, Tensor, Tensor]]:
        """Yield name, number of steps, target (B, ...) and the estimates of the steps (K, B, ...), standardised."""
        targets = dict(self._targets(images))
        for num_steps in candidates:
            for name, steps in self._estimates(images, num_steps):
                scale = noise[name].scale
                wanted = centred(steps) if steps.dim() == 3 else steps.double()
                yield name, num_steps, targets[name] / scale, wanted / scale

    def _estimates(self, images: Tensor, num_steps: int) -> Iterator[tuple[str, Tensor]]:
        """Yield each compared flow's name and estimates T(X_T_hat_i), (K, B, ...); without a step T(X_S), once."""
        student = self.flows.student
        if num_steps == 0:
            assert isinstance(student, FlowStudent)
            yield self.flows.names[0], student(images, 0)[None]
            return
        trajectories = student.trajectories(images, num_steps)
        for name, trajectory, transform in zip(self.flows.names, trajectories, self.flows.transforms, strict=True):
            if transform is not None:
                yield name, at_each_step(transform, trajectory.estimates)


MIN_VARIANCE = 1e-12
"""Of noise that is fitted: what remains of it where a student says what its teacher says."""
CONSTANT = 16 * torch.finfo(torch.float32).eps
"""The standard deviation of a channel, beside its root mean square, up to which it is constant but for rounding."""


def _fitted(mean: Tensor, squares: Tensor) -> Noise:
    """Return the noise of a flow whose targets have this mean and these mean squares, (C,) or (C, H, W) each."""
    if mean.dim() == 1:
        scale, dims = torch.ones_like(mean[:1]), max(mean.numel() - 1, 1)
    else:
        centre = mean.mean(dim=(1, 2), keepdim=True)  # (C, 1, 1)
        power = squares.mean(dim=(1, 2), keepdim=True)
        spread = power - centre.square()
        varies = spread > CONSTANT**2 * power
        scale = torch.where(varies, spread.clamp(min=0).sqrt(), math.inf)
        dims = max(int(varies.sum()) * mean[0].numel(), 1)
    trivial = float(((squares - mean.square()) / scale.square()).sum()) / dims
    return Noise(mean / scale, scale, dims, {}, max(trivial, MIN_VARIANCE))


def _figures(target: Tensor, steps: Tensor, noise: Noise, num_steps: int) -> dict[str, Tensor]:
    """Return the figures of each image, (B,), by column."""
    found = gaussian_figures(target, steps, variance=noise.variance[num_steps], dims=noise.dims)._asdict()
    trivial = noise.mean.expand_as(target)[None]
    found["trivial"] = gaussian_figures(target, trivial, variance=noise.trivial, dims=noise.dims).bound
    if target.dim() == 2:
        entropy, ensemble, bound = categorical_figures(target, steps)
        found |= {"entropy": entropy, "categorical_ensemble": ensemble, "categorical_bound": bound}
    return found


def fitted_bound(noise: Mapping[str, Noise], num_steps: int) -> float:
    """Return the bound in nats per image on the images that the noise was fitted on, summed over the flows.

    With the variance fitted there it is d/2 (log(2 pi s^2) + 1).
    """
    return sum(_normal_entropy(one.variance[num_steps], one.dims) for one in noise.values())


def trivial_bound(noise: Mapping[str, Noise]) -> float:
    """Return the same of the trivial predictor."""
    return sum(_normal_entropy(one.trivial, one.dims) for one in noise.values())


def _normal_entropy(variance: float, dims: int) -> float:
    return dims / 2 * (math.log(2 * math.pi * variance) + 1)
