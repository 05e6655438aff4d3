"""Settings of a network that is trained: what it is, what it starts from, and its training."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from models.detection.detectors import DETECTORS
from pipeline.core.settings import (
    BackboneName,
    Count,
    Counts,
    Mean,
    PathText,
    Positive,
    Section,
    Std,
    entry_of,
    knob,
    rare,
)
from pipeline.networks.origins import origin_of
from pipeline.training.settings import FineTuning, Training


class DetectorSettings(Section):
    """What finds objects on a backbone's feature maps: a pyramid of levels and a head."""

    kind: Annotated[str, entry_of(DETECTORS)] = knob("fcos", "head and losses; faster_rcnn can teach alone")
    width: Count = knob(256, "channels of pyramid and head; of fcos a multiple of 32")
    num_convs: Count = knob(4, "convolutions of each branch of the head; of retinanet 4")
    levels: Counts | None = knob(
        None, "stages of the backbone that the pyramid takes, counted from 1; null: the last three"
    )
    extra: Literal["pool", "p6p7", "p6p7_c5"] = rare(
        "p6p7", "coarser levels above: pool: one; p6p7: two by convolutions, p6p7_c5 from the backbone's last map"
    )
    center_sampling_radius: Positive = rare(1.5, "of fcos: places around an object's centre that learn it, in strides")


class TrainedNetwork(Section):
    """A network that is trained from random weights, or from given ones."""

    backbone: BackboneName = knob("resnet8", "resnet20, one of torchvision's, timm:NAME or python:FILE.py:FUNCTION")
    weights: PathText | None = knob(
        None,
        "null: start from scratch; or from a file (.safetensors or a state dict), torchvision[:NAME], or timm[:TAG]",
    )
    training: Training = knob(Training(), "how the network is trained; 0 epochs take given weights as they are")
    detector: DetectorSettings = rare(DetectorSettings(), "to detect objects: what finds them on the backbone")
    weights_entry: str | None = rare(None, "where in the file they stand, e.g. state_dict; null: found by itself")
    mean: Mean | None = rare(
        None,
        "normalisation, e.g. [0.485, 0.456, 0.406]; null: that of the weights where known, else of the images",
    )
    std: Std | None = rare(None, "of the same normalisation: standard deviations, e.g. [0.229, 0.224, 0.225]")

    @model_validator(mode="after")
    def _mean_with_std(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, or null for both")
        return self

    @model_validator(mode="after")
    def _published_weights_exist(self) -> Self:
        if self.weights is not None and not origin_of(self.weights).may_have(self.backbone):
            name = origin_of(self.weights).name
            raise ValueError(
                f"weights: {name} has no weights of {self.backbone!r}; give a file, or null to train from scratch"
            )
        return self

    @property
    def has_weights(self) -> bool:
        """Whether the network comes with weights."""
        return self.weights is not None

    @model_validator(mode="after")
    def _given_weights_suit_the_training(self) -> Self:
        if self.has_weights:
            return self
        if self.training.epochs == 0:
            raise ValueError("training.epochs: got 0 without weights; give weights, or train for an epoch at least")
        changed = self.training.fine_tuning.model_dump().items() - FineTuning().model_dump().items()
        if changed:
            names = ", ".join(name for name in FineTuning.model_fields if name in dict(changed))
            raise ValueError(
                f"training.fine_tuning: {names} count where the network starts from weights, and weights is null; give "
                "weights, or leave them at their defaults"
            )
        return self
