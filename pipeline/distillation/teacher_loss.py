"""What the objectives of transfer share: the frozen teacher, the cost against it, the steps of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from models.classifier import Classifier
from pipeline.data.augmentation import Batch
from pipeline.distillation.criterion import Criterion
from pipeline.training.objective import Objective


class FrozenTeacher(nn.Module):
    """A teacher that stays as it is: in eval mode whatever is called on it, without gradients, never updated.

    Args:
        stages: the stages, counted from 1, whose feature maps are taught; empty: the logits are.
    """

    def __init__(self, network: Classifier, stages: Sequence[int] = ()) -> None:
        super().__init__()
        self.network = network.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
        self.stages = tuple(stages)
        super().train(mode=False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002, FBT001, FBT002  (signature of nn.Module)
        """Stay in eval mode."""
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the targets X_T: a feature map (B, C, H, W) for each stage, or the logits (B, num_classes) alone."""
        with torch.inference_mode():
            maps = self.network.feature_maps(images) if self.stages else [self.network(images)]
        chosen = [maps[stage - 1] for stage in self.stages] or maps
        return [target.clone() for target in chosen]  # what is cloned out here may take part in a student's gradient


class TeacherLoss:
    """What a student's outputs cost against a teacher.

    Args:
        pair_ratio: the share of the batch whose images keep their own teacher row (the paper's beta_d); see
            ``paired``.
    """

    def __init__(self, teacher: FrozenTeacher, metric: Criterion, *, pair_ratio: float = 1.0) -> None:
        self.teacher = teacher
        self.metric = metric
        self.pair_ratio = pair_ratio

    def cost(self, outputs: Sequence[Tensor], batch: Batch, epoch: int) -> Tensor:
        """Return the mean of L(output, X_T): one of ``outputs`` for each target (B, ...) of the teacher.

        An output is shaped like its target, with a leading dimension of steps where there are several.
        """
        targets = paired(self.teacher(batch.images), self.pair_ratio)
        costs = [
            self.metric(output, target, labels=batch.labels, epoch=epoch)
            for output, target in zip(outputs, targets, strict=True)
        ]
        return torch.stack(costs).mean()


@dataclass(frozen=True)
class StepSampler:
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

    steps: StepSampler

    def predict(self, images: Tensor) -> Tensor:
        """Return the student's logits with the largest number of steps of training."""
        return self.student(images, self.steps.largest)  # type: ignore[no-any-return]


def paired(targets: Sequence[Tensor], ratio: float) -> Sequence[Tensor]:
    """Return the teacher's ``targets`` (B, ...) in the order in which the student's rows see them: pair decoupling.

    Rows below int(ratio * B) keep their own; the others are permuted among themselves, all targets alike. Ratio 1
    decouples none.
    """
    if ratio == 1:
        return targets
    batch_size, device = len(targets[0]), targets[0].device
    kept = int(ratio * batch_size)
    rows = torch.cat([torch.arange(kept, device=device), kept + torch.randperm(batch_size - kept, device=device)])
    return [target[rows] for target in targets]
