"""The parts of params.yaml that training stages share, and the strictness of all of it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False), Field(min_length=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Strict(), Field(gt=0, le=1)]
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
    """Stochastic gradient descent, with ``momentum`` and ``nesterov``, or AdamW, with ``betas``."""

    name: Literal["sgd", "adamw"]
    learning_rate: Positive
    momentum: BelowOne
    nesterov: bool
    betas: Annotated[tuple[Annotated[BelowOne, Strict()], Annotated[BelowOne, Strict()]], Strict(strict=False)]
    weight_decay: NonNegative
    decay_all: bool
    """Whether weight decay also takes biases and the weights of normalisation."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set nesterov to false, or a momentum")
        return self


class Execution(Section):
    """How training runs; a stage's own section says what it learns."""

    num_processes: Annotated[int, Field(ge=1, le=1024)]
    compile: Literal["auto", "always", "never"]
    compile_fallback: bool


class LearningRate(Section):
    """Warm-up, then a cosine to zero, steps by ``gamma`` at ``milestones`` (epochs), or the end of one cycle."""

    name: Literal["cosine", "multistep", "one_cycle"]
    warmup_epochs: Annotated[int, Field(ge=0)]
    milestones: Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False)]
    gamma: Annotated[float, Field(gt=0, le=1)]


class Augment(Section):
    """Random changes of the training images."""

    crop_padding: Annotated[int, Field(ge=0)]
    horizontal_flip: bool
    resized_crop_scale: Annotated[tuple[Share, Share], Strict(strict=False)] | None
    color_jitter: BelowOne
    mixup_alpha: NonNegative
    cutmix_alpha: NonNegative

    @model_validator(mode="after")
    def _scale_ascends(self) -> Self:
        if self.resized_crop_scale is not None and self.resized_crop_scale[0] > self.resized_crop_scale[1]:
            raise ValueError(
                f"resized_crop_scale: got {list(self.resized_crop_scale)}; give the smaller share of the image first"
            )
        return self


class Training(Section):
    """Settings of one training run."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    label_smoothing: BelowOne
    clip_norm: Positive | None
    ema_decay: Fraction | None
    optimizer: Optimizer
    schedule: LearningRate
    augment: Augment

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            got = f"{self.schedule.warmup_epochs} of {self.epochs}"
            raise ValueError(f"schedule.warmup_epochs must be fewer than epochs, got {got}; lower it, or train longer")
        return self
