"""What a student's outputs cost against its teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.transfer_losses import paired
from pipeline.data.batch import Batch
from pipeline.distillation.criterion import Criterion, mean_of
from pipeline.distillation.frozen_teacher import FrozenTeacher


class TeacherLoss:
    """What a student's outputs cost against a teacher.

    Args:
        pair_ratio: the share of the batch whose images keep their own teacher row (the paper's beta_d); see
            ``models.transfer_losses.paired``.
        weights: of the losses in their sum, one for each target; None: their mean counts.
    """

    def __init__(
        self,
        teacher: FrozenTeacher,
        criterion: Criterion,
        *,
        pair_ratio: float = 1.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.teacher = teacher
        self.criterion = criterion
        self.pair_ratio = pair_ratio
        self.weights = weights

    def teacher_logits(self, batch: Batch) -> Tensor:
        """Return the teacher's outputs (B, ...) on ``batch``, whose rows are those of the batch."""
        [outputs] = self.teacher.targets(batch)
        return outputs

    def __call__(self, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the weighted sum, or the mean, of L(output, X_T): one of ``outputs`` for each target of the teacher.

        An output is shaped like its target (B, ...), with a leading dimension of steps where there are several.
        """
        targets = paired(self.teacher.targets(batch), self.pair_ratio)
        losses = [
            self.criterion(output, target, batch.targets) for output, target in zip(outputs, targets, strict=True)
        ]
        if self.weights is None:
            return mean_of(losses)
        return torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()
