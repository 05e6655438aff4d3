"""How networks of the task ``hits`` are trained: as classifiers are, under other names."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.core.arrays import Truth
from pipeline.data.batch import Batch, Targets
from pipeline.data.dataset import Split
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import ClassificationTraining, CrossEntropy
from pipeline.tasks.training import ExportParts, Supervision


class HitTargets(ClassTargets):
    """The right thing of each image."""

    def truth(self) -> Truth:
        """Return its number, (N,)."""
        return {"right": self.labels.cpu().numpy()}


class Misses(CrossEntropy):
    """The cross-entropy, reported as what it is to this task."""

    loss_name = "misses"

    def batch_scores(self, predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the share of hits."""
        return {"train_hit_rate": super().batch_scores(predicted, batch)["train_accuracy"]}

    def validate(self, predict: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> Mapping[str, float]:
        """Return the share of hits on ``split``."""
        return {"hit_rate": super().validate(predict, split, device)["accuracy"]}


class HitsTraining(ClassificationTraining):
    """The training side of the task ``hits``."""

    def read_targets(self, tensors: Mapping[str, Tensor]) -> Targets:
        """Return the right things."""
        return HitTargets(tensors["right"])

    def supervision(self, *, label_smoothing: float, class_counts: Sequence[int] | None = None) -> Supervision:
        """Return the loss."""
        return Misses(label_smoothing, class_counts)

    def export_parts(self, network: nn.Module) -> ExportParts:
        """Return the whole network as the body."""
        return ExportParts(network, ("points",), None)
