"""How classifiers are built, trained and watched."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.factory import build_classifier
from pipeline.core.arrays import Outputs
from pipeline.core.distributed import all_reduce_sum, local_shard, world_size
from pipeline.data.batch import Batch, Mix, Targets
from pipeline.data.dataset import DataInfo, Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.data.settings import Augment
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.classification.class_rows import take_classes
from pipeline.tasks.classification.doubts import doubts
from pipeline.tasks.classification.targets import ClassTargets, class_targets
from pipeline.tasks.significance import share_error
from pipeline.tasks.training import (
    ExportParts,
    GivenCheck,
    NetworkChoice,
    StudentKinds,
    Supervision,
    TaskTraining,
    Validation,
)

VALIDATION_BATCH = 256


class CrossEntropy(Supervision):
    """Cross-entropy with the labels, or with the shares of mixed images.

    Args:
        class_names: of the labels.
        label_smoothing: share of every label that is spread over all classes.
        class_counts: training images of each class; none: of each the same.
        balanced: whether an image's loss is weighted by the inverse of that.
    """

    loss_name = "cross_entropy"

    def __init__(
        self,
        class_names: Sequence[str],
        label_smoothing: float,
        class_counts: Sequence[int] = (),
        *,
        balanced: bool = False,
    ) -> None:
        self.class_names = class_names
        self.fresh_loss = math.log(len(class_names))
        even = balanced or not class_counts
        self.guess_loss = self.fresh_loss if even else smoothed_entropy(class_counts, label_smoothing)
        self.label_smoothing = label_smoothing
        self.weights = balanced_weights(class_counts) if balanced else None

    def loss(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of logits (..., B, num_classes), each leading entry with the same labels."""
        targets = class_targets(batch)
        wanted = targets.labels if targets.soft_targets is None else targets.soft_targets
        wanted = wanted.expand(*predicted.shape[:-2], *wanted.shape).reshape(-1, *wanted.shape[1:])
        flat = predicted.reshape(-1, predicted.shape[-1])
        if self.weights is None:
            return functional.cross_entropy(flat, wanted, label_smoothing=self.label_smoothing)
        weights = self.weights.to(flat.device, torch.promote_types(flat.dtype, torch.float32))
        loss = functional.cross_entropy(flat, wanted, weights, label_smoothing=self.label_smoothing)
        if targets.soft_targets is not None:
            return loss  # PyTorch divides by the number of images, which all processes have alike
        shard = weights[targets.labels].sum()  # it has divided by this, and the whole batch counts
        return loss * shard * world_size() / all_reduce_sum(shard)

    def batch_scores(self, predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the share of the batch whose largest logit is the label's."""
        correct = predicted.detach().argmax(dim=1) == class_targets(batch).labels
        return {"train_accuracy": correct.float().mean()}

    @torch.no_grad()
    def validate(self, predict: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> Validation:
        """Return the share of ``split`` whose largest logit is the label's."""
        shard, predicted = local_shard(0, len(split)), torch.zeros(len(split), dtype=torch.int64, device=device)
        place = shard.start
        for batch in ordered_batches(split.select(shard), VALIDATION_BATCH, device):
            predicted[place : place + len(batch.images)] = predict(batch.images).argmax(dim=1)
            place += len(batch.images)
        assert isinstance(split.targets, ClassTargets)
        answers, labels = all_reduce_sum(predicted).cpu().numpy(), split.targets.labels.cpu().numpy()
        accuracy = float((answers == labels).mean())
        error = share_error(accuracy, len(split))
        return Validation({"accuracy": accuracy}, error, doubts(answers, labels, self.class_names))


class ClassificationTraining(TaskTraining):
    """The training side of the task ``classification``."""

    kinds = StudentKinds(
        features="feature_flow_student",
        logits="flow_student",
        features_and_logits="feature_and_logit_flow_student",
        layers="layered_classifier",
    )

    def read_targets(self, tensors: Mapping[str, Tensor]) -> Targets:
        """Return the labels."""
        return ClassTargets(tensors["labels"])

    def build_mix(self, augment: Augment, info: DataInfo) -> Mix | None:
        """Return torchvision's MixUp or CutMix; see ``build_mix``."""
        return build_mix(
            mixup_alpha=augment.mixup_alpha, cutmix_alpha=augment.cutmix_alpha, num_classes=len(info.class_names)
        )

    def supervision(self, info: DataInfo, *, label_smoothing: float, class_weights: str | None) -> Supervision:
        """Return the cross-entropy."""
        balanced = class_weights == "balanced"
        return CrossEntropy(info.class_names, label_smoothing, info.class_counts, balanced=balanced)

    def plain_network(
        self, settings: NetworkChoice, info: DataInfo, *, mean: list[float], std: list[float]
    ) -> NetworkSpec:
        """Return how a classifier is made."""
        arguments = {"backbone": settings.backbone, **self.output_arguments(info), "mean": mean, "std": std}
        return NetworkSpec("classifier", arguments | {"image_size": list(info.image_size)})

    def build_plain(self, spec: NetworkSpec) -> nn.Module:
        """Return the classifier."""
        return build_classifier(**spec.arguments)

    def with_feature_map(self, spec: NetworkSpec) -> NetworkSpec:
        """Return how the classifier is made so that its backbone ends in a feature map."""
        return spec._replace(arguments=spec.arguments | {"feature_map": True})

    def of_any_size(self, spec: NetworkSpec) -> NetworkSpec:
        """Return how the classifier is made without a size."""
        return spec._replace(arguments=spec.arguments | {"image_size": None})

    def check_given(self, network: nn.Module, split: Split, info: DataInfo, device: torch.device) -> GivenCheck:
        """Return whether another order of the classes, or another normalisation, makes the classifier right."""
        from pipeline.tasks.classification.given_weights import check_given_classifier  # SciPy, which few need

        return check_given_classifier(network, split, info, device)

    def take_outputs(
        self, network: nn.Module, whole: nn.Module, outputs: Sequence[int], info: DataInfo, *, layers: Collection[str]
    ) -> None:
        """Take the rows of the output layers that belong to ``outputs``, and all other weights as they are."""
        take_classes(network, whole, outputs, num_classes=len(info.class_names), layers=layers)

    def output_arguments(self, info: DataInfo) -> dict[str, Any]:
        """Return the number of classes."""
        return {"num_classes": len(info.class_names)}

    def outputs(self, predicted: Tensor) -> Outputs:
        """Return the logits (B, num_classes)."""
        return {"logits": predicted.detach().cpu().numpy()}

    def export_parts(self, network: nn.Module) -> ExportParts:
        """Return the whole network as the body: logits are the outputs."""
        return ExportParts(network, ("logits",), None)


def smoothed_entropy(class_counts: Sequence[int], label_smoothing: float) -> float:
    """Return the cross-entropy in nats of answering each image with the shares of the classes, smoothed like labels."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    shares = (1 - label_smoothing) * counts / counts.sum() + label_smoothing / len(counts)
    return float(torch.special.entr(shares).sum())


def balanced_weights(class_counts: Sequence[int]) -> Tensor:
    """Return the weight of each class, float32 (num_classes,): the mean number of images over its own.

    The mean weight of an image is 1, as with scikit-learn's ``class_weight="balanced"``; no class is empty.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return (counts.mean() / counts).float()


def build_mix(*, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> Mix | None:
    """Return what mixes each image of a batch with its neighbour, by torchvision's MixUp or CutMix; None: nothing does.

    An alpha of 0 leaves that one out; with both, each batch draws one of them. PyTorch's generator of the CPU decides.
    """
    if not (mixup_alpha or cutmix_alpha):
        return None
    from torchvision.transforms import v2  # takes seconds, and few need it

    choices = [v2.MixUp(alpha=mixup_alpha, num_classes=num_classes)] if mixup_alpha else []
    choices += [v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes)] if cutmix_alpha else []
    chosen = v2.RandomChoice(choices)

    def mix(batch: Batch) -> Batch:
        images, soft_targets = chosen(batch.images, class_targets(batch).labels)
        targets = ClassTargets(soft_targets.argmax(dim=1), soft_targets)
        return Batch(images.contiguous(memory_format=torch.channels_last), targets)

    return mix
