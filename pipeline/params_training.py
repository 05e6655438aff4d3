"""The parts of params.yaml that training stages share, and the strictness of all of it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False), Field(min_length=1)]
NumThreads = Annotated[int, Field(ge=1, le=1024)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Mean = Annotated[tuple[Finite, Finite, Finite], Strict(strict=False)]
Std = Annotated[tuple[Positive, Positive, Positive], Strict(strict=False)]


def _expanded(path: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"got {path!r}, whose home directory is not known ({error})") from error


PathText = Annotated[str, Field(min_length=1), AfterValidator(_expanded)]


class Section(BaseModel):
    """A group of keys: every key must be there, no other may be, and each has its type exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Optimizer(Section):
    """Stochastic gradient descent."""

    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: NonNegative
    decay_all: bool
    """Whether weight decay also takes biases and the weights of normalisation."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set nesterov to false, or a momentum")
        return self


class LearningRate(Section):
    """Linear warm-up, then a cosine to zero or steps by ``gamma`` at ``milestones`` (epochs)."""

    name: Literal["cosine", "multistep"]
    warmup_epochs: Annotated[int, Field(ge=0)]
    milestones: Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False)]
    gamma: Annotated[float, Field(gt=0, le=1)]


class Augment(Section):
    """Random changes of the training images."""

    crop_padding: Annotated[int, Field(ge=0)]
    horizontal_flip: bool


class Training(Section):
    """Settings of one training run."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    precision: Literal["fp32", "bf16"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    optimizer: Optimizer
    schedule: LearningRate
    augment: Augment

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            got = f"{self.schedule.warmup_epochs} of {self.epochs}"
            raise ValueError(f"schedule.warmup_epochs must be fewer than epochs, got {got}; lower it, or train longer")
        return self
