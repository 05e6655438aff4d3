"""The section distill_student of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from pipeline.distillation.methods import LOSSES_OF, METHODS
from pipeline.params.training import Count, Counts, NonNegative, Positive, Section, Training


class KdLoss(Section):
    """Hinton et al. 2015."""

    temperature: Positive


class DkdLoss(Section):
    """Zhao et al. 2022."""

    alpha: NonNegative
    beta: NonNegative
    temperature: Positive
    warmup_epochs: Annotated[int, Field(ge=0)]


class DistLoss(Section):
    """Huang et al. 2022."""

    beta: NonNegative
    gamma: NonNegative
    temperature: Positive


class Losses(Section):
    """Settings of each metric loss that has any; ``distill_student.loss`` chooses one."""

    kd: KdLoss
    dkd: DkdLoss
    dist: DistLoss


class Flow(Section):
    """Settings of the flow from student to teacher."""

    schedule: Literal["rectified", "vp", "ve"]
    num_steps: Counts
    num_steps_warmup: Annotated[int, Field(ge=0)]
    meta_encoder: Literal["conv", "conv_mobile", "mlp", "transformer"]
    time_scale: Positive
    pair_ratio: Annotated[float, Field(ge=0, le=1)]


class Theta(Section):
    """The plain head of ``fm_kt_theta``."""

    weight: Positive
    reaches_backbone: bool


Pair = Annotated[tuple[Annotated[Count, Strict()], Annotated[Count, Strict()]], Strict(strict=False)]


class DistillStudent(Section):
    """The student and how it learns."""

    method: Literal["fm_kt", "fm_kt_theta", "ofm_kt", "none", "metric", "metric_meta"]
    backbone: str
    transfer: Literal["logits", "features"]
    feature_pairs: Annotated[tuple[Pair, ...], Strict(strict=False), Field(min_length=1)]
    loss: Literal["kd", "dkd", "dist", "pkd", "mse"]
    loss_weight: Positive
    losses: Losses
    flow: Flow
    theta: Theta
    training: Training

    @property
    def needs_teacher(self) -> bool:
        """Whether the method learns from a teacher."""
        return METHODS[self.method].needs_teacher

    @property
    def needs_feature_map(self) -> bool:
        """Whether the student's backbone must pool a feature map."""
        return METHODS[self.method].needs_feature_map

    @property
    def taught_pairs(self) -> list[list[int]]:
        """Return the pairs [student's stage, teacher's stage] whose features are transferred; none for logits."""
        is_used = self.transfer == "features" and self.needs_teacher
        return [list(pair) for pair in self.feature_pairs] if is_used else []

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        transfer = self.transfer
        if self.method != "none" and self.loss not in LOSSES_OF[transfer]:
            others = [name for name, losses in LOSSES_OF.items() if self.loss in losses]
            raise ValueError(
                f"loss {self.loss!r} does not work on {transfer}; use {' or '.join(LOSSES_OF[transfer])}, "
                f"or set transfer to {others[0]}"
            )
        if transfer not in METHODS[self.method].transfers:
            able = [name for name, method in METHODS.items() if transfer in method.transfers]
            raise ValueError(
                f"method {self.method!r} does not transfer {transfer}; use {' or '.join(able)}, "
                "or set transfer to logits"
            )
        stages = [student for student, _ in self.feature_pairs]
        if sorted(set(stages)) != stages:
            raise ValueError(
                f"feature_pairs: got the student's stages {stages}; give each once, in ascending order, "
                "as [[student's stage, teacher's stage], ...]"
            )
        return self
