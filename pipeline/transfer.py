"""Objectives that learn from a teacher."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.flow_student import FlowStudent
from pipeline.data.batches import Batch
from pipeline.objectives import Loss

Metric = Callable[[Tensor, Tensor], Tensor]
"""L(student's logits, teacher's logits), each (B, num_classes), to a scalar."""


class FrozenTeacher(nn.Module):
    """A teacher that stays as it is: in eval mode whatever is called on it, without gradients, never updated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(requires_grad=False)
        super().train(mode=False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002, FBT001, FBT002  (signature of nn.Module)
        """Stay in eval mode."""
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the teacher's logits (B, num_classes)."""
        return self.network(images)  # type: ignore[no-any-return]


class MetricDistillation:
    """Classical distillation, the control ``metric``: CE + w L(student, teacher)."""

    def __init__(
        self, network: nn.Module, teacher: FrozenTeacher, metric: Metric, *, weight: float, label_smoothing: float
    ) -> None:
        self.network = network
        self.teacher = teacher
        self.metric = metric
        self.weight = weight
        self.label_smoothing = label_smoothing

    def __call__(self, batch: Batch) -> Loss:
        """Return CE + w L."""
        logits = self.network(batch.images)
        cross_entropy = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        transfer = self.metric(logits, self.teacher(batch.images))
        total = cross_entropy + self.weight * transfer
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, logits)

    def predict(self, images: Tensor) -> Tensor:
        """Return the student's logits."""
        return self.network(images)  # type: ignore[no-any-return]


class FlowMatching:
    """Logit-based FM-KT with serial training: w / N sum_i [L(T(X_T_hat_i), X_T) + CE(T(X_T_hat_i), y)].

    The chain starts at the student's feature and never sees the teacher (arXiv 2402.02012, section 3).
    """

    def __init__(
        self,
        network: FlowStudent,
        teacher: FrozenTeacher,
        metric: Metric,
        *,
        num_steps: int,
        weight: float,
        label_smoothing: float,
    ) -> None:
        self.network = network
        self.teacher = teacher
        self.metric = metric
        self.num_steps = num_steps
        self.weight = weight
        self.label_smoothing = label_smoothing

    def __call__(self, batch: Batch) -> Loss:
        """Return the weighted mean over the steps of L + CE."""
        target = self.teacher(batch.images)
        steps = self.network.step_logits(batch.images, self.num_steps)
        transfer = torch.stack([self.metric(logits, target) for logits in steps]).mean()
        cross_entropy = torch.stack(
            [functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing) for logits in steps]
        ).mean()
        total = self.weight * (transfer + cross_entropy)
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, torch.stack(steps).mean(dim=0))

    def predict(self, images: Tensor) -> Tensor:
        """Return the student's logits with as many steps as in training."""
        return self.network(images, self.num_steps)  # type: ignore[no-any-return]
