"""Objectives: what one batch costs, as a total and its named parts; the training loop knows no more than this."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.augmentation import Batch


class Loss(NamedTuple):
    """The cost of one batch."""

    total: Tensor
    """What is differentiated; scalar."""
    parts: dict[str, Tensor]
    """The terms of the total as they are reported, unweighted; scalars."""
    logits: Tensor
    """What the network predicted, (B, num_classes)."""


class Objective:
    """A student and how it is judged in training.

    Args:
        student: what deploys.
        helper: what is trained beside it and does not deploy, or None.
        teacher: what it learns from and leaves as it is, or None.
        label_smoothing: of every cross-entropy with the labels.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        adapter: nn.Module | None = None,
        teacher: nn.Module | None = None,
        label_smoothing: float,
    ) -> None:
        self.student = student
        self.adapter = adapter
        self.label_smoothing = label_smoothing
        self.network = nn.ModuleList([student] if adapter is None else [student, adapter])
        self.networks = [self.network] if teacher is None else [self.network, teacher]

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return the cost of ``batch`` in ``epoch``, counted from 0."""
        raise NotImplementedError

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits (B, num_classes) by which progress is measured: those of the student."""
        return self.student(images)  # type: ignore[no-any-return]

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of ``logits`` (..., B, num_classes) with the labels.

        Leading dimensions are those of steps, each of which is compared with the same labels.
        """
        wanted = batch.labels if batch.soft_targets is None else batch.soft_targets
        wanted = wanted.expand(*logits.shape[:-2], *wanted.shape).reshape(-1, *wanted.shape[1:])
        return functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted, label_smoothing=self.label_smoothing
        )


class Supervised(Objective):
    """Cross-entropy with the labels: trains teachers, and students of method ``none``."""

    def __call__(self, batch: Batch, epoch: int) -> Loss:  # noqa: ARG002
        """Return CE(network(images), labels)."""
        logits = self.student(batch.images)
        cross_entropy = self.cross_entropy(logits, batch)
        return Loss(cross_entropy, {"cross_entropy": cross_entropy}, logits)
