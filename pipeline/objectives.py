"""Objectives: what one batch costs, as a total and its named parts; the training loop knows no more than this."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.batches import Batch


class Loss(NamedTuple):
    """The cost of one batch."""

    total: Tensor
    """What is differentiated; scalar."""
    parts: dict[str, Tensor]
    """The terms of the total as they are reported, unweighted; scalars."""
    logits: Tensor
    """What the network predicted, (B, num_classes)."""


class Objective(Protocol):
    """A network and how it is judged in training."""

    @property
    def network(self) -> nn.Module:
        """Return the network whose parameters are trained."""

    def __call__(self, batch: Batch) -> Loss:
        """Return the cost of ``batch``."""

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits (B, num_classes) by which progress is measured."""


class Supervised:
    """Cross-entropy with the labels: trains teachers, and students of method ``none``."""

    def __init__(self, network: nn.Module, *, label_smoothing: float) -> None:
        self.network = network
        self.label_smoothing = label_smoothing

    def __call__(self, batch: Batch) -> Loss:
        """Return CE(network(images), labels)."""
        logits = self.network(batch.images)
        cross_entropy = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return Loss(cross_entropy, {"cross_entropy": cross_entropy}, logits)

    def predict(self, images: Tensor) -> Tensor:
        """Return the network's logits."""
        return self.network(images)  # type: ignore[no-any-return]
