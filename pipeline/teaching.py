"""What the objectives of transfer share: the frozen teacher, the cost against it, the steps of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from models.networks import Classifier
from pipeline.data.batches import Batch
from pipeline.metric import Metric
from pipeline.objectives import Objective


class FrozenTeacher(nn.Module):
    """A teacher that stays as it is: in eval mode whatever is called on it, without gradients, never updated.

    Args:
        stages: the stages, counted from 1, whose feature maps are taught; empty: the logits are.
    """

    def __init__(self, network: Classifier, stages: Sequence[int] = ()) -> None:
        super().__init__()
        self.network = network.requires_grad_(requires_grad=False)
        self.stages = tuple(stages)
        super().train(mode=False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002, FBT001, FBT002  (signature of nn.Module)
        """Stay in eval mode."""
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the targets X_T: a feature map (B, C, H, W) for each stage, or the logits (B, num_classes) alone."""
        if not self.stages:
            return [self.network(images)]
        maps = self.network.feature_maps(images)
        return [maps[stage - 1] for stage in self.stages]


class Teaching:
    """What a student's outputs cost against a teacher.

    Args:
        pair_ratio: the share of the batch whose images keep their own teacher row (the paper's beta_d); see
            ``paired_rows``.
    """

    def __init__(self, teacher: FrozenTeacher, metric: Metric, *, pair_ratio: float = 1.0) -> None:
        self.teacher = teacher
        self.metric = metric
        self.pair_ratio = pair_ratio

    def cost(self, outputs: Sequence[Sequence[Tensor]], batch: Batch, epoch: int) -> Tensor:
        """Return the mean of L(output, X_T) over all outputs: for each target of the teacher, those of every step."""
        rows = paired_rows(len(batch.labels), self.pair_ratio, batch.labels.device)
        costs = [
            self.metric(output, target[rows], labels=batch.labels, epoch=epoch)
            for steps, target in zip(outputs, self.teacher(batch.images), strict=True)
            for output in steps
        ]
        return torch.stack(costs).mean()


@dataclass(frozen=True)
class StepPlan:
    """How many sampling steps a batch takes in training: one number, or one drawn from several.

    Early on the larger ones wait: in epoch e, counted from 0, N is at most the largest power of two not above
    (e + warmup_epochs) / warmup_epochs (the authors' rule with 10 epochs), and at least the smallest choice.
    """

    choices: Sequence[int]
    warmup_epochs: int = 0

    def allowed(self, epoch: int) -> list[int]:
        """Return the numbers of steps that may be drawn in ``epoch``, counted from 0."""
        if not self.warmup_epochs:
            return sorted(self.choices)
        cap = 2 ** (((epoch + self.warmup_epochs) // self.warmup_epochs).bit_length() - 1)
        return [n for n in sorted(self.choices) if n <= cap] or [min(self.choices)]

    def draw(self, epoch: int) -> int:
        """Return the number of steps of one batch, drawn by PyTorch's generator where there are several."""
        allowed = self.allowed(epoch)
        return allowed[int(torch.randint(len(allowed), ()))] if len(allowed) > 1 else allowed[0]

    @property
    def largest(self) -> int:
        """Return the largest number of steps."""
        return max(self.choices)


class SteppedObjective(Objective):
    """An objective whose student takes sampling steps."""

    steps: StepPlan

    def predict(self, images: Tensor) -> Tensor:
        """Return the student's logits with the largest number of steps of training."""
        return self.student(images, self.steps.largest)  # type: ignore[no-any-return]


def paired_rows(batch_size: int, ratio: float, device: torch.device) -> Tensor:
    """Return for each row of the student the row (B,) of the teacher that it is paired with: pair decoupling.

    Rows below int(ratio * B) keep their own; the others are permuted among themselves. Ratio 1 decouples none.
    """
    kept = int(ratio * batch_size)
    rows = torch.cat([torch.arange(kept), kept + torch.randperm(batch_size - kept)])
    return rows.to(device)
