"""How networks of the task ``hits`` are trained: as classifiers are, under other names."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipeline.core.arrays import Outputs, Truth
from pipeline.data.batch import Batch, Targets
from pipeline.data.dataset import DataInfo, Split
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import ClassificationTraining, CrossEntropy
from pipeline.tasks.training import ExportParts, Supervision, Validation


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

    def validate(self, predict: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> Validation:
        """Return the share of hits on ``split``."""
        found = super().validate(predict, split, device)
        return found._replace(scores={"hit_rate": found.scores["accuracy"]}, doubts=())


class HitsTraining(ClassificationTraining):
    """The training side of the task ``hits``."""

    def read_targets(self, tensors: Mapping[str, Tensor]) -> Targets:
        """Return the right things."""
        return HitTargets(tensors["right"])

    def supervision(self, info: DataInfo, *, label_smoothing: float, class_weights: str | None) -> Supervision:
        """Return the loss."""
        balanced = class_weights == "balanced"
        return Misses(info.class_names, label_smoothing, info.class_counts, balanced=balanced)

    def outputs(self, predicted: Tensor) -> Outputs:
        """Return the points of each thing."""
        return {"points": predicted.detach().cpu().numpy()}

    def export_parts(self, network: nn.Module) -> ExportParts:
        """Return the whole network as the body."""
        return ExportParts(network, ("points",), None)
