"""Settings of the stage ``train_teacher``."""

from typing import Self

from pydantic import model_validator

from pipeline.core.settings import BackboneName, PathText, knob
from pipeline.training.network_settings import TrainedNetwork
from pipeline.training.settings import Training


class TrainTeacher(TrainedNetwork):
    """The network to learn from: trained here, from scratch or from given weights, or taken as it is."""

    backbone: BackboneName = knob("resnet8x4", "resnet20, one of torchvision's, timm:NAME or python:FILE.py:FUNCTION")
    classes: PathText | None = knob(
        None, "classes of given weights, in their order: a text or JSON file; null: that of data.json"
    )
    training: Training = knob(Training(epochs=20), "how the teacher is trained")

    @model_validator(mode="after")
    def _classes_are_of_weights(self) -> Self:
        if self.classes is not None and self.weights is None:
            raise ValueError(
                "classes: got a file without weights; classes are those of given weights: set both, or none"
            )
        return self
