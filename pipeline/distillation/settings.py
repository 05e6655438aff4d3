"""Settings of the student: the method, what it transfers and by which criterion, the flow, and its training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from models.core.table import Table
from models.meta_encoders import META_ENCODERS, InitialWeights, Predicts
from models.schedules import SCHEDULES
from pipeline.core.settings import (
    BackboneName,
    Count,
    Counts,
    Fraction,
    NonNegative,
    Positive,
    Section,
    entry_of,
    knob,
    rare,
    section_of,
)
from pipeline.distillation.criteria import (
    CRITERIA,
    FEATURES,
    FEATURES_AND_LOGITS,
    LOGITS,
    CriterionEntry,
    Transfer,
)
from pipeline.distillation.methods import METHODS
from pipeline.networks.programs import find_program
from pipeline.training.network_settings import TrainedNetwork
from pipeline.training.settings import Training


class CriteriaSettings(Section):
    """Settings of each criterion that has any."""


def losses_section(criteria: Table[CriterionEntry]) -> type[CriteriaSettings]:
    """Return the class that holds the settings of each of ``criteria`` that has any."""
    sections = {
        name: (entry.settings(), entry.description) for name, entry in criteria.items() if entry.settings is not None
    }
    built: type[CriteriaSettings] = section_of("Losses", CriteriaSettings, sections)
    return built


if TYPE_CHECKING:
    Losses = CriteriaSettings  # its fields are those of the table, which mypy does not see
else:
    Losses = losses_section(CRITERIA)


_OF_IMAGES = ", which images without boxes have"
"""Where a message advises to transfer logits."""
MAX_WIDTH = 4096
"""Channels of a meta-encoder; that many have 450 million parameters in two 3x3 convolutions already."""


ThetaTarget = Literal["flow", "teacher", "both"]


class Flow(Section):
    """Settings of the flow from student to teacher."""

    num_steps: Counts = knob((4,), "steps in training; of several, as [1, 2, 4, 8], each batch draws one")
    schedule: Annotated[str, entry_of(SCHEDULES)] = knob("rectified", "path from student to teacher")
    meta_encoder: Annotated[str, entry_of(META_ENCODERS)] = knob("conv", "small network that predicts the velocity")
    width: Literal["auto", "full"] | Annotated[int, Field(ge=1, le=MAX_WIDTH)] = knob(
        "auto",
        "its channels: auto (the student stays small), full (as the features), or N",
        takes=f"auto, full, or a number of channels from 1 to {MAX_WIDTH}",
    )
    num_steps_warmup: Annotated[int, Field(ge=0)] = rare(
        0, "of several: at first at most (epoch + this) / this; the authors use 10; 0: off"
    )
    predicts: Predicts = rare(
        "velocity", "what the meta-encoder returns: the velocity, or the estimate of what the teacher says"
    )
    initial_weights: InitialWeights = rare(
        "pytorch", "how the meta-encoder's convolutions start: as PyTorch has it, or fan_out, the authors' choice"
    )
    time_scale: Positive = rare(1.0, "what times are multiplied by before their sinusoids; the authors use 1")
    pair_ratio: Annotated[float, Field(ge=0, le=1)] = rare(
        1.0, "pair decoupling: share of a batch that keeps its own teacher's answer (beta_d)"
    )
    ema_decay: Fraction | None = rare(
        None, "what deploys of the flows is a moving average of their weights, e.g. 0.999; null: the last weights"
    )


class Theta(Section):
    """The plain head of ``fm_kt_theta``."""

    weight: Positive = knob(1.0, "weight of the head's loss")
    reaches_backbone: bool = knob(default=True, description="whether that loss trains the backbone as well")
    target: ThetaTarget = knob(
        "flow", "what the head learns from: the flow's output (the published form), the teacher, or both alike"
    )
    tied: bool = knob(
        default=False,
        description="whether the head is the flow's own classifier: the student then takes any number of steps, 0 too",
    )
    flow_weight_end: NonNegative | None = rare(
        None, "what the weight of the flow's loss goes to over the last third of the epochs; null: it stays"
    )


class LogitLoss(Section):
    """What the student's logits cost against the teacher's where feature maps are transferred."""

    weight: NonNegative = knob(0.0, "of that loss beside those of the labels and of the feature maps; 0: there is none")
    criterion: Annotated[str, entry_of(CRITERIA)] = knob(
        "kd", "by which they are compared; of transfer features_and_logits over the steps of the flow that leads there"
    )


class Layers(Section):
    """The meta-encoder as ordinary layers, the control ``metric_meta``."""

    bias: bool = knob(default=True, description="whether they begin with a learned bias, as a flow's time embedding is")
    num_heads: Count = knob(1, "heads on one backbone, each with such layers, whose mean deploys: an ensemble")


def _comparing(what: Transfer) -> list[str]:
    """Return the criteria that compare ``what``."""
    return [name for name, entry in CRITERIA.items() if what in entry.applies_to]


PairWeights = Annotated[tuple[Annotated[NonNegative, Strict()], ...], Strict(strict=False)]
Pair = Annotated[tuple[Annotated[Count, Strict()], Annotated[Count, Strict()]], Strict(strict=False)]


class DistillStudent(TrainedNetwork):
    """The student and how it learns."""

    method: Annotated[str, entry_of(METHODS)] = knob("fm_kt", "how the student learns")
    backbone: BackboneName = knob("resnet8", "the student's network: the same names as for the teacher")
    transfer: Transfer = knob(
        LOGITS,
        "what of the teacher is transferred; features_and_logits: by flows at feature maps and one more at the logits",
    )
    loss: Annotated[str, entry_of(CRITERIA)] = knob("dist", "criterion by which student and teacher are compared")
    loss_weight: Positive = knob(1.0, "weight of the criterion beside the loss on the labels")
    flow: Flow = knob(Flow(), "the flow from student to teacher")
    training: Training = knob(Training(epochs=18), "how the student is trained")
    stored_views: Count | None = knob(
        None,
        "null: the teacher runs at each step; V: in the first V epochs alone, whose batches then come again in turn, "
        "its logits from disk (without augmentation 1, else 8 or more)",
        takes="a number of epochs, or null",
    )
    allow_larger: bool = rare(default=False, description="whether a student may have more parameters than its teacher")
    feature_pairs: Annotated[tuple[Pair, ...], Strict(strict=False), Field(min_length=1)] | None = rare(
        ((2, 2), (3, 3)),
        "to transfer features: pairs [student's stage, teacher's stage], counted from 1; of detectors levels of the "
        "pyramid, of vision transformers 1, the last tokens; null: all, one to one",
    )
    pair_weights: PairWeights | Literal["mean", "sum"] | None = rare(
        None,
        "of the losses of the pairs: mean, sum, or the weight of each in their sum; null: their mean, of detectors the "
        "sum without the last level",
        takes="mean, sum, a list of numbers >= 0, or null",
    )
    logit_loss: LogitLoss = rare(LogitLoss(), "beside transferred features: the loss of the logits")
    losses: Losses = rare(Losses(), "settings of each criterion; loss and logit_loss choose")
    layers: Layers = rare(Layers(), "the control metric_meta: the meta-encoder as ordinary layers")
    theta: Theta = rare(Theta(), "the plain head of method fm_kt_theta")

    @property
    def needs_teacher(self) -> bool:
        """Whether the method learns from a teacher."""
        return METHODS[self.method].needs_teacher

    @property
    def needs_feature_map(self) -> bool:
        """Whether the student's backbone must pool a feature map."""
        return METHODS[self.method].needs_feature_map

    @property
    def transfers_features(self) -> bool:
        """Whether feature maps of a teacher are transferred."""
        return self.transfer != LOGITS and self.needs_teacher

    @property
    def compares_logits_beside(self) -> bool:
        """Whether the logits have a loss of their own beside that of feature maps."""
        return self.transfers_features and self.logit_loss.weight > 0

    @property
    def teacher_pairs(self) -> list[list[int]]:
        """Return the pairs [student's stage, teacher's stage] that are given and transferred; none for logits."""
        return [list(pair) for pair in self.feature_pairs or ()] if self.transfers_features else []

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return ``feature_pairs``, which are given or have been found (``pipeline.distillation.pairs``)."""
        assert self.feature_pairs is not None
        return self.feature_pairs

    @property
    def taught(self) -> list[int]:
        """Return the positions of those ``pairs`` that have a loss."""
        weights = self.weights_of_pairs
        return [i for i in range(len(self.pairs)) if weights is None or weights[i] > 0]

    @property
    def weights_of_pairs(self) -> tuple[float, ...] | None:
        """Return the weight of each of ``pairs`` in the sum of their losses; None: their mean counts."""
        if isinstance(self.pair_weights, str):
            return (1.0,) * len(self.pairs) if self.pair_weights == "sum" else None
        return self.pair_weights

    def warnings(self, width: int) -> Iterator[str]:
        """Yield what is allowed, but hardly meant, of answers among ``width``."""
        views, epochs = self.stored_views, self.training.epochs
        if self.needs_teacher and views is not None and views >= epochs:
            yield f"distill_student.stored_views: {views} of {epochs} epochs: no batch comes again; give fewer, or null"
        chosen = {"loss": self.loss} if METHODS[self.method].uses_criterion else {}
        if self.compares_logits_beside:
            chosen["logit_loss.criterion"] = self.logit_loss.criterion
        for key, criterion in chosen.items():
            entry, compared = CRITERIA[criterion], self._compared if key == "loss" else LOGITS
            if width < entry.whole_from_classes:
                able = [name for name in _comparing(compared) if CRITERIA[name].whole_from_classes <= width]
                yield (
                    f"distill_student.{key}: {criterion} of {width} classes: {entry.idle_part} is constant, "
                    f"and nothing is learnt from it; {' or '.join(able)} work with {width}"
                )

    @property
    def _compared(self) -> Transfer:
        """What ``loss`` compares."""
        return LOGITS if self.transfer == LOGITS else FEATURES

    def settings_of(self, criterion: str) -> Section | None:
        """Return the settings of the ``criterion``, or None where it has none."""
        found: Section | None = getattr(self.losses, criterion) if CRITERIA[criterion].settings else None
        return found

    @model_validator(mode="after")
    def _criterion_fits_transfer(self) -> Self:
        applies_to = CRITERIA[self.loss].applies_to
        if METHODS[self.method].uses_criterion and self._compared not in applies_to:
            raise ValueError(
                f"loss {self.loss!r} does not work on {self._compared}; use {' or '.join(_comparing(self._compared))}, "
                f"or set transfer to {applies_to[0]}{_OF_IMAGES if applies_to[0] == LOGITS else ''}"
            )
        return self

    @model_validator(mode="after")
    def _backbone_can_be_trained(self) -> Self:
        if find_program(self.backbone) is not None:
            raise ValueError(f"backbone: {self.backbone} can teach, but not be trained; give the name of a network")
        return self

    @model_validator(mode="after")
    def _stores_logits_alone(self) -> Self:
        if self.stored_views is not None and self.transfers_features:
            raise ValueError(
                f"stored_views: got {self.stored_views}, but feature maps are too large to be stored; set it to null, "
                f"or transfer to {LOGITS}{_OF_IMAGES}"
            )
        return self

    @model_validator(mode="after")
    def _method_can_transfer(self) -> Self:
        transfers = METHODS[self.method].transfers
        if self.transfer not in transfers:
            able = [name for name, entry in METHODS.items() if self.transfer in entry.transfers]
            raise ValueError(
                f"method {self.method!r} does not transfer {self.transfer}; use {' or '.join(able)}, "
                f"or, of images without boxes, set transfer to {transfers[0]}"
            )
        return self

    @model_validator(mode="after")
    def _logits_have_one_loss(self) -> Self:
        own, able = self.logit_loss, _comparing(LOGITS)
        if own.criterion not in able:
            raise ValueError(
                f"logit_loss.criterion: got {own.criterion!r}, which does not work on logits; use {' or '.join(able)}"
            )
        if not METHODS[self.method].uses_criterion:
            return self
        if own.weight and self.transfer == LOGITS:
            raise ValueError(
                f"logit_loss.weight: got {own.weight:g}, but transfer logits has loss for them; set it to 0 "
                f"or transfer to {FEATURES} or {FEATURES_AND_LOGITS}"
            )
        if not own.weight and self.transfer == FEATURES_AND_LOGITS:
            raise ValueError(
                f"logit_loss.weight: got 0, by which no logits are transferred; give a weight, 1 is usual, or set "
                f"transfer to {FEATURES}"
            )
        return self

    @model_validator(mode="after")
    def _tied_flow_can_rest(self) -> Self:
        if self.method == "fm_kt_theta" and self.theta.tied and self.flow.predicts != "velocity":
            raise ValueError(
                f"theta.tied: got true, but a flow that predicts its {self.flow.predicts} does not start at rest; set "
                "flow.predicts to velocity, or theta.tied to false"
            )
        return self

    @model_validator(mode="after")
    def _several_heads_have_logits(self) -> Self:
        if self.method == "metric_meta" and self.layers.num_heads > 1 and self.transfer != LOGITS:
            raise ValueError(
                f"layers.num_heads: got {self.layers.num_heads}, but heads answer with {LOGITS}; set it to 1, or "
                f"transfer to {LOGITS}{_OF_IMAGES}"
            )
        return self

    @model_validator(mode="after")
    def _something_trains_what_the_method_adds(self) -> Self:
        if self.training.epochs == 0 and not METHODS[self.method].takes_given:
            able = " or ".join(name for name, entry in METHODS.items() if entry.takes_given)
            raise ValueError(
                f"training.epochs: got 0, but method {self.method!r} learns in training alone; train for an epoch at "
                f"least, or take given weights as they are with method {able}"
            )
        return self

    @model_validator(mode="after")
    def _stages_ascend(self) -> Self:
        stages = [student for student, _ in self.feature_pairs or ()]
        if sorted(set(stages)) != stages:
            raise ValueError(
                f"feature_pairs: got the student's stages {stages}; give each once, in ascending order, "
                "as [[student's stage, teacher's stage], ...]"
            )
        return self

    @model_validator(mode="after")
    def _each_pair_has_a_weight(self) -> Self:
        if self.pair_weights is None or isinstance(self.pair_weights, str):
            return self
        if not any(self.pair_weights):
            raise ValueError(
                f"pair_weights: got {list(self.pair_weights)}, by which nothing is transferred; give one above 0"
            )
        if self.feature_pairs is not None and len(self.pair_weights) != len(self.feature_pairs):
            raise ValueError(
                f"pair_weights: got {len(self.pair_weights)} for {len(self.feature_pairs)} feature_pairs; give one each"
            )
        return self
