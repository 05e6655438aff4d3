"""Settings of the stage ``train_teacher``."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from models.backbones.sources import known_without_pytorch
from pipeline.core.settings import BackboneName, Mean, PathText, Section, Std, knob, rare
from pipeline.networks.torchvision_weights import is_published
from pipeline.training.settings import Training


class TrainTeacher(Section):
    """The network to learn from: trained here, or given as a file of weights."""

    backbone: BackboneName = knob(
        "resnet8x4", "the teacher's network: for small images, as resnet20, or one of torchvision's"
    )
    weights: PathText | None = knob(
        None, "null: train; or a file (.safetensors or a state dict), or the word torchvision"
    )
    classes: PathText | None = knob(
        None, "classes of given weights, in their order: a text or JSON file; null: that of data.json"
    )
    training: Training = knob(Training(epochs=20), "how the teacher is trained, where no weights are given")
    weights_entry: Annotated[str, Field(min_length=1)] | None = rare(
        None, "where the weights stand in their file, e.g. state_dict_ema; null: where they are found and fit"
    )
    mean: Mean | None = rare(None, "normalisation of given weights, e.g. [0.485, 0.456, 0.406]; null: of the images")
    std: Std | None = rare(None, "of the same normalisation: standard deviations, e.g. [0.229, 0.224, 0.225]")

    @model_validator(mode="after")
    def _mean_with_std(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, or null for both")
        return self

    @model_validator(mode="after")
    def _what_is_said_of_weights_has_some(self) -> Self:
        for key in ("classes", "weights_entry"):
            if getattr(self, key) is not None and self.weights is None:
                raise ValueError(f"{key} is of given weights, and there are none: set weights, or {key} to null")
        return self

    @model_validator(mode="after")
    def _published_weights_exist(self) -> Self:
        if is_published(self.weights) and known_without_pytorch(self.backbone):
            raise ValueError(f"torchvision has no weights of {self.backbone!r}; give a file, or null to train")
        return self
