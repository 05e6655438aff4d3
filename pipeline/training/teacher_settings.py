"""Settings of the stage ``train_teacher``."""

from typing import Self

from pydantic import field_validator, model_validator

from pipeline.core.settings import BackboneName, PathText, knob
from pipeline.networks.programs import PROGRAMS, find_program
from pipeline.training.network_settings import TrainedNetwork
from pipeline.training.settings import Training


class TrainTeacher(TrainedNetwork):
    """The network to learn from: trained here, from scratch or from given weights, or taken as it is."""

    backbone: BackboneName = knob(
        "resnet8x4",
        "resnet20, one of torchvision's, timm:NAME, python:FILE.py:FUNCTION; or a finished network that teaches logits "
        "as it is: onnx:FILE, exported:FILE",
    )
    classes: PathText | None = knob(
        None, "classes of given weights, in their order: a text or JSON file; null: that of data.json"
    )
    training: Training = knob(Training(epochs=12), "how the teacher is trained")

    @property
    def is_program(self) -> bool:
        """Whether the teacher is a finished network in a file, with its weights."""
        return find_program(self.backbone) is not None

    @property
    def has_weights(self) -> bool:
        """Whether the teacher comes with weights: given ones, or its own as a program."""
        return self.is_program or super().has_weights

    @field_validator("backbone")
    @classmethod
    def _program_has_a_file(cls, backbone: str) -> str:
        source, colon, file = backbone.partition(":")
        if colon and not file and source in PROGRAMS:
            raise ValueError(f"got {backbone!r} without a file; give {source}:FILE")
        return backbone

    @model_validator(mode="after")
    def _program_stays_as_it_is(self) -> Self:
        if self.is_program and self.weights is not None:
            raise ValueError(f"weights: got {self.weights!r}, but {self.backbone} holds its own; set weights to null")
        if self.is_program and self.training.epochs > 0:
            raise ValueError(
                f"training.epochs: got {self.training.epochs}, but {self.backbone} is a finished network, which can "
                "teach but not be trained; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _classes_are_of_weights(self) -> Self:
        if self.classes is not None and not self.has_weights:
            raise ValueError(
                "classes: got a file without weights; classes are those of given weights: set both, or none"
            )
        return self
