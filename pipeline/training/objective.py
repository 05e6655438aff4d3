"""Objectives: what one batch costs, as a total and its named parts; the training loop knows no more than this."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

from torch import Tensor, nn

from pipeline.data.batch import Batch
from pipeline.tasks.training import Predicted, Supervision
from pipeline.training.fine_tuning import TunedBackbone


class Loss(NamedTuple):
    """The cost of one batch."""

    total: Tensor
    """What is differentiated; scalar."""
    parts: dict[str, Tensor]
    """The terms of the total as they are reported, unweighted; scalars."""
    predicted: Predicted
    """What the network predicted, for the task's scores."""


class FollowsEpoch(Protocol):
    """What changes from epoch to epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins."""


class AveragedApart(NamedTuple):
    """Parts of a network whose weights are averaged apart from the rest."""

    modules: Sequence[nn.Module]
    decay: float
    """The share of the average that remains at each step."""


class Objective(nn.Module, ABC):
    """A student and how it is trained.

    Args:
        student: what deploys.
        adapter: what is trained beside it and does not deploy, or None.
        teacher: what it learns from and leaves as it is, or None.
        supervision: the loss against the targets.
        follows_epoch: what must know the epoch.
        num_views: after so many epochs their batches come again, image for image; None: they never do.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        adapter: nn.Module | None = None,
        teacher: nn.Module | None = None,
        supervision: Supervision,
        follows_epoch: Sequence[FollowsEpoch] = (),
        num_views: int | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.network = nn.ModuleList([student] if adapter is None else [student, adapter])
        """What is trained."""
        self.teacher = teacher
        self.supervision = supervision
        self.follows_epoch = follows_epoch
        self.num_views = num_views
        self.tuned: TunedBackbone | None = None
        """The part of the student that given weights brought; None: nothing was given."""
        self.averaged_apart: AveragedApart | None = None
        """What of the network deploys as a moving average of its own; None: nothing does."""

    def view(self, epoch: int) -> int:
        """Return the epoch whose batches ``epoch`` has: its own, or an earlier one that it repeats."""
        return epoch if self.num_views is None else epoch % self.num_views

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins."""
        for part in (*self.follows_epoch, *([self.tuned] if self.tuned else [])):
            part.set_epoch(epoch)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  (signature of nn.Module)
        """Set the mode of all, except batch normalisations that keep their statistics."""
        super().train(mode)
        if self.tuned is not None:
            self.tuned.hold_batch_norms()
        return self

    @abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """Return the cost of ``batch``."""

    def predict(self, images: Tensor) -> Predicted:
        """Return what progress is measured by: the student's outputs."""
        return self.student(images)


class Supervised(Objective):
    """The loss against the targets alone: trains teachers, and students of method ``none``."""

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the network's outputs against the targets."""
        predicted = self.student(batch.images)
        loss = self.supervision.loss(predicted, batch)
        return Loss(loss, {self.supervision.loss_name: loss}, predicted)
