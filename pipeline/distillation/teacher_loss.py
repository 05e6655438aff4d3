"""What a student's outputs cost against its teacher."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.transfer_losses import paired
from pipeline.data.batch import Batch
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.frozen_teacher import FrozenTeacher


class LogitTerm(NamedTuple):
    """What the student's logits cost beside the loss of feature maps."""

    criterion: Criterion
    weight: float
    by_flow: bool
    """Whether a flow leads to them: pair decoupling is of flows, and a plain head keeps each image's own answer."""


class Costs(NamedTuple):
    """What a student's outputs cost, unweighted scalars."""

    transfer: Tensor
    logits: Tensor | None
    """None: they are not compared beside the rest."""


class TeacherLoss:
    """What a student's outputs cost against a teacher.

    Args:
        teacher: with a ``logit_term`` its outputs are the last target.
        pair_ratio: the share of the batch whose images keep their own teacher row (the paper's beta_d); see
            ``models.transfer_losses.paired``.
        weights: of the losses in their sum, one for each target; None: their mean counts.
        logit_term: None: the student's logits are not compared beside the targets.
    """

    def __init__(
        self,
        teacher: FrozenTeacher,
        criterion: Criterion,
        *,
        pair_ratio: float = 1.0,
        weights: Sequence[float] | None = None,
        logit_term: LogitTerm | None = None,
    ) -> None:
        self.teacher = teacher
        self.criterion = criterion
        self.pair_ratio = pair_ratio
        self.weights = weights
        self.logit_term = logit_term

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins."""
        self.criterion.set_epoch(epoch)
        self.teacher.set_epoch(epoch)
        if self.logit_term is not None:
            self.logit_term.criterion.set_epoch(epoch)

    def teacher_logits(self, batch: Batch) -> Tensor:
        """Return the teacher's outputs (B, ...) on ``batch``, whose rows are those of the batch."""
        [outputs] = self.teacher.targets(batch)
        return outputs

    def __call__(self, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the weighted sum, or the mean, of L(output, X_T): one of ``outputs`` for each target of the teacher.

        An output is shaped like its target (B, ...), with a leading dimension of steps where there are several.
        """
        return self._compared(outputs, paired(self.teacher.targets(batch), self.pair_ratio), batch)

    def with_logits(self, outputs: Sequence[Tensor], logits: Tensor, batch: Batch) -> Costs:
        """Return what ``outputs`` cost, and what the student's ``logits`` (B, num_classes) do, of steps (N, B, ...)."""
        if self.logit_term is None:
            return Costs(self(outputs, batch), None)
        targets = self.teacher.targets(batch)
        *decoupled, answers = paired(targets, self.pair_ratio)
        wanted = answers if self.logit_term.by_flow else targets[-1]
        return Costs(
            self._compared(outputs, decoupled, batch), self.logit_term.criterion(logits, wanted, batch.targets)
        )

    def _compared(self, outputs: Sequence[Tensor], targets: Sequence[Tensor], batch: Batch) -> Tensor:
        losses = [
            self.criterion(output, target, batch.targets) for output, target in zip(outputs, targets, strict=True)
        ]
        if self.weights is None:
            return torch.stack(losses).mean()
        return torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()
