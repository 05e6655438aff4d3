"""Settings of the stage ``train_teacher``."""

from typing import Self

from pydantic import model_validator

from models.backbones.sources import known_without_pytorch
from pipeline.core.settings import BackboneName, Mean, PathText, Section, Std, knob, rare
from pipeline.networks.programs import find_program
from pipeline.networks.torchvision_weights import is_published
from pipeline.training.settings import Training


class TrainTeacher(Section):
    """The network to learn from: trained here, or given as a file of weights."""

    backbone: BackboneName = knob(
        "resnet8x4",
        "the teacher's network: for small images, as resnet20, or one of torchvision's; or a finished one that teaches "
        "logits as it is, onnx:FILE or exported:FILE (torch.export)",
    )
    weights: PathText | None = knob(
        None, "null: train; or a file (.safetensors or a state dict), or the word torchvision"
    )
    training: Training = knob(Training(epochs=20), "how the teacher is trained, where no weights are given")
    mean: Mean | None = rare(
        None,
        "normalisation of given weights, e.g. [0.485, 0.456, 0.406]; null: of the images, of onnx and exported none",
    )
    std: Std | None = rare(None, "of the same normalisation: standard deviations, e.g. [0.229, 0.224, 0.225]")

    @model_validator(mode="after")
    def _mean_with_std(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, or null for both")
        return self

    @property
    def is_given(self) -> bool:
        """Whether nothing is trained: the weights are given, or the network is a program."""
        return self.weights is not None or find_program(self.backbone) is not None

    @model_validator(mode="after")
    def _program_holds_its_weights(self) -> Self:
        if self.weights is not None and find_program(self.backbone) is not None:
            raise ValueError(f"weights: got {self.weights!r}, but {self.backbone} holds its own; set weights to null")
        return self

    @model_validator(mode="after")
    def _published_weights_exist(self) -> Self:
        if is_published(self.weights) and known_without_pytorch(self.backbone):
            raise ValueError(f"torchvision has no weights of {self.backbone!r}; give a file, or null to train")
        return self
