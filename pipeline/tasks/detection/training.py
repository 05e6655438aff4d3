"""How detectors are built, trained and watched."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.detection.building import Choices, build_detector
from models.detection.places import Places
from models.detection.published import PUBLISHED, Published
from models.detection.tail import Tail
from models.detections import NO_NMS, Detections
from pipeline.core.arrays import Outputs, Pixels, concatenate
from pipeline.core.distributed import all_gather_arrays, all_reduce_sum, local_shard
from pipeline.data.batch import Batch, Mix, Targets
from pipeline.data.dataset import DataInfo, Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.data.settings import Augment
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import Weights
from pipeline.tasks.base import Task
from pipeline.tasks.detection.coco_weights import choose_categories
from pipeline.tasks.detection.instances import BOXES, CLASSES, COUNT, SCORES
from pipeline.tasks.detection.suppression import ALL_BOXES, ALL_SCORES
from pipeline.tasks.detection.tail_check import require_enough
from pipeline.tasks.detection.targets import BoxTargets
from pipeline.tasks.training import (
    ExportParts,
    NetworkChoice,
    Predicted,
    StudentKinds,
    Supervision,
    TaskTraining,
    Validation,
)

FOUND = (COUNT, BOXES, SCORES, CLASSES)
ALL_PLACES = (ALL_BOXES, ALL_SCORES)
VALIDATION_BATCH = 16
LAST_OF_RESNET = (3, 4, 5)
"""The stages of a ResNet that a pyramid takes where none are named."""
FRESH_LOSS = 3.0
"""About what the losses of torchvision's detectors sum up to at random weights: classification 1.1, the rest 1 to 2."""


class DetectorLoss(Supervision):
    """The detector's own losses, summed.

    Args:
        task: scores what is found.
        class_names: of the objects.
        outputs: from what a network predicted to the four arrays of detections.
    """

    loss_name = "detection_loss"
    fresh_loss = FRESH_LOSS
    guess_loss = None

    def __init__(self, task: Task, class_names: tuple[str, ...], outputs: Callable[[Predicted], Outputs]) -> None:
        self.task = task
        self.class_names = class_names
        self.outputs = outputs
        self._parts: dict[str, Tensor] = {}

    def loss(self, predicted: Predicted, batch: Batch) -> Tensor:
        """Return the sum of the losses of ``predicted``, computed in float32."""
        boxes, classes = objects_of(batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            parts: dict[str, Tensor] = predicted.losses(boxes, classes, all_reduce=all_reduce_sum)
        self._parts = {f"{name}_loss": part.detach() for name, part in parts.items()}
        return torch.stack([*parts.values()]).sum()

    def batch_scores(self, predicted: Predicted, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the parts of the last loss: of classes, boxes and, where there is one, the places' centres."""
        return self._parts

    def validate(self, predict: Callable[[Tensor], Predicted], split: Split, device: torch.device) -> Validation:
        """Return the average precision and its companions."""
        part = split.select(local_shard(0, len(split)))
        with torch.no_grad():
            found = [self.outputs(predict(batch.images)) for batch in ordered_batches(part, VALIDATION_BATCH, device)]
        outputs = concatenate([batch for batches in all_gather_arrays(found) for batch in batches])
        truth = split.targets.truth()
        scores = self.task.score(outputs, truth)
        ordered = {self.task.primary: scores[self.task.primary], **scores}
        error = self.task.standard_error(outputs, truth)
        return Validation(ordered, error, self.task.doubts(outputs, truth, self.class_names))


def objects_of(batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """Return boxes (m, 4) and classes (m,) of the objects of each image that are to be learned."""
    targets = batch.targets
    assert isinstance(targets, BoxTargets)
    learned = ~targets.ignored
    before = torch.cat([learned.new_zeros(1, dtype=torch.int64), learned.cumsum(0)])
    counts = before[targets.offsets].diff().tolist()
    return [*torch.split(targets.boxes[learned], counts)], [*torch.split(targets.classes[learned], counts)]


class DetectionTraining(TaskTraining):
    """The training side of the task ``detection``.

    Args:
        task: the other side.
        detections: what deployed detectors answer.
    """

    kinds = StudentKinds(features="flow_detector", feature_layers="layered_detector")
    sums_pairs = True

    def __init__(self, task: Task, detections: Detections) -> None:
        self.task = task
        self.detections = detections

    def read_targets(self, tensors: Mapping[str, Tensor]) -> Targets:
        """Return the objects."""
        return BoxTargets.of(tensors)

    def build_mix(self, augment: Augment, info: DataInfo) -> Mix | None:  # noqa: ARG002
        """Return None: boxes of mixed images mean nothing."""
        return None

    def supervision(self, info: DataInfo, *, label_smoothing: float, class_weights: str | None) -> Supervision:  # noqa: ARG002
        """Return the detector's own losses; its validation takes the default settings of detections."""
        training = DetectionTraining(self.task, Detections())
        return DetectorLoss(self.task, info.class_names, training.outputs)

    def plain_network(
        self, settings: NetworkChoice, info: DataInfo, *, mean: list[float], std: list[float]
    ) -> NetworkSpec:
        """Return how a detector is made."""
        chosen = settings.detector.model_dump(mode="json")
        arguments = {"backbone": settings.backbone, **self.output_arguments(info), "mean": mean, "std": std}
        arguments |= {"image_size": list(info.image_size), "detector": chosen.pop("kind"), **chosen}
        return NetworkSpec("detector", arguments)

    def build_plain(self, spec: NetworkSpec) -> nn.Module:
        """Return the detector.

        Raises:
            ValueError: the backbone is unknown or has no such stages, or the images do not suit the levels.
        """
        return build_detector(**spec.arguments)

    def published_names(self, settings: NetworkChoice) -> Sequence[str]:
        """Return torchvision's name of the detector, where it publishes the same one."""
        chosen, backbone = settings.detector.model_dump(), settings.backbone.removeprefix("torchvision:")
        if (chosen["width"], chosen["num_convs"]) != (Choices().width, Choices().num_convs):
            return []
        levels = chosen["levels"] or LAST_OF_RESNET
        wanted = Published(chosen["kind"], f"torchvision:{backbone}", levels, chosen["extra"])
        return [name for name, known in PUBLISHED.items() if known == wanted]

    def choose_outputs(self, weights: Weights, info: DataInfo) -> Weights:
        """Return ``weights`` with the classes of ``info``, where they were trained on COCO by torchvision."""
        return choose_categories(weights, info.class_names)

    def output_arguments(self, info: DataInfo) -> dict[str, Any]:
        """Return the number of classes."""
        return {"num_classes": len(info.class_names)}

    def outputs(self, predicted: Predicted) -> Outputs:
        """Return what is found, or, where the network drops nothing, boxes and scores of all places."""
        found = predicted.detect(self.detections)
        names = ALL_PLACES if self.detections.nms == NO_NMS else FOUND
        return {name: tensor.detach().cpu().numpy() for name, tensor in zip(names, found, strict=True)}

    def export_parts(self, network: nn.Module) -> ExportParts:
        """Return the network up to its head's tensors, and from those to what is found."""
        places = next(module for module in network.modules() if isinstance(module, Places))
        return ExportParts(_HeadTensors(network), places.output_names, Tail(places, self.detections))

    def check_export(self, network: nn.Module, pixels: Pixels) -> None:
        """Check that the graph looks at enough candidates, in enough rounds, for all that ``pixels`` hold."""
        require_enough(self.export_parts(network), pixels, self.detections)


class _HeadTensors(nn.Module):
    """A detector up to its head's tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors (B, P, ...) on images (B, 3, H, W)."""
        tensors: tuple[Tensor, ...] = self.network(images).tensors
        return tensors


def count_places(network: Mapping[str, Any]) -> int:
    """Return the number of places of the detector that is made by ``network``, or is made in part by it.

    Args:
        network: arguments of ``build_detector``, and of what is built around a detector.
    """
    names = {*inspect.signature(build_detector).parameters, *Choices._fields}
    with torch.device("meta"):
        return len(build_detector(**{name: value for name, value in network.items() if name in names}).places)
