"""Settings of training: the optimizer and its schedule, and how a run is executed."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from pipeline.core.settings import (
    BelowOne,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
    knob,
    rare,
)
from pipeline.data.settings import Augment

LARGEST_PORT = 65535
_LABEL = "[A-Za-z0-9_-]{1,63}"  # of longer and empty ones no name can be looked up
ENDPOINT = re.compile(rf"(?!-){_LABEL}(\.{_LABEL})*\.?:[0-9]{{1,5}}")
LONGEST_WAIT = 60 * 24 * 365
"""Minutes: more than a year means without end, and clocks of systems end somewhere."""


class Optimizer(Section):
    """Stochastic gradient descent, with ``momentum`` and ``nesterov``, or AdamW, with ``betas``."""

    name: Literal["sgd", "adamw"] = knob("sgd", "stochastic gradient descent or AdamW")
    learning_rate: Positive = knob(0.1, "its largest value; the schedule multiplies it")
    weight_decay: NonNegative = knob(5e-4, "pulls weights towards zero")
    momentum: BelowOne = rare(0.9, "of sgd: share of the last step that goes on")
    nesterov: bool = rare(default=True, description="of sgd: look ahead along the momentum")
    betas: Annotated[tuple[Annotated[BelowOne, Strict()], Annotated[BelowOne, Strict()]], Strict(strict=False)] = rare(
        (0.9, 0.999), "of adamw: decay of the averages of gradients and of their squares"
    )
    decay_all: bool = rare(
        default=True, description="weight decay for all; false spares biases and the weights of normalisation"
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set nesterov to false, or a momentum")
        return self


class LearningRate(Section):
    """Warm-up, then a cosine to zero, steps by ``gamma`` at ``milestones``, or the end of one cycle."""

    name: Literal["cosine", "multistep", "one_cycle"] = knob("cosine", "how the learning rate falls after the warm-up")
    warmup_epochs: Annotated[int, Field(ge=0)] | NonNegative = knob(
        2,
        "epochs, or a fraction of one, over which the learning rate rises to its largest value",
        takes="a number >= 0",
    )
    milestones: Annotated[tuple[Annotated[Count, Strict()], ...], Strict(strict=False)] = knob(
        (), "of multistep: epochs at which it is multiplied by gamma"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = rare(0.1, "of multistep: what it is multiplied by at each milestone")


class FineTuning(Section):
    """How a network that starts from given weights treats them.

    Its backbone is all of it but the output layer and what the method adds: flow, meta-encoder, adapter.
    """

    backbone_learning_rate_factor: Positive = knob(1.0, "learning rate of the backbone, as a multiple; e.g. 0.1")
    frozen_epochs: Annotated[int, Field(ge=0)] = knob(0, "epochs at the start in which all but the backbone learns")
    batch_norm: Literal["train", "frozen"] = knob(
        "train", "frozen: the backbone's batch normalisation keeps its running statistics and uses them in training too"
    )


class Training(Section):
    """Settings of one training run."""

    epochs: Annotated[int, Field(ge=0)] = knob(20, "passes over the training images; 0: given weights as they are")
    batch_size: Annotated[int, Field(ge=2)] = knob(64, "images of one step, over all processes")
    min_epoch_steps: Count = knob(1, "steps of an epoch at least; fewer images are passed over again until then")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = knob("fp32", "number format; auto: by device and network")
    optimizer: Optimizer = knob(Optimizer(), "what changes the weights")
    schedule: LearningRate = knob(LearningRate(), "learning rate over the epochs")
    augment: Augment = knob(Augment(), "random changes of the training images")
    fine_tuning: FineTuning = knob(FineTuning(), "where the network starts from given weights: how they are treated")
    label_smoothing: BelowOne = rare(0.0, "share of the target that is spread over all classes, e.g. 0.1")
    class_weights: Literal["balanced"] | None = rare(
        None, "balanced: each class weighs the same in the loss, however few its images; null: each image does"
    )
    clip_norm: Positive | None = rare(None, "largest norm of the gradient; null: any")
    ema_decay: Fraction | None = rare(
        None, "what deploys is a moving average of the weights, e.g. 0.999; null: the last weights"
    )

    def supervision_settings(self) -> dict[str, Any]:
        """Return what a task's ``supervision`` takes beside the data."""
        return {"label_smoothing": self.label_smoothing, "class_weights": self.class_weights}

    @model_validator(mode="after")
    def _frozen_epochs_end(self) -> Self:
        frozen = self.fine_tuning.frozen_epochs
        if 0 < self.epochs <= frozen:
            raise ValueError(
                f"fine_tuning.frozen_epochs must be fewer than epochs, got {frozen} of {self.epochs}; lower it, or "
                "train longer"
            )
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if 0 < self.epochs <= self.schedule.warmup_epochs:
            got = f"{self.schedule.warmup_epochs} of {self.epochs}"
            raise ValueError(f"schedule.warmup_epochs must be fewer than epochs, got {got}; lower it, or train longer")
        return self


def check_endpoint(endpoint: str) -> str:
    """Return ``endpoint``; raises ValueError where it is no HOST:PORT of a name or an IPv4 address."""
    if not ENDPOINT.fullmatch(endpoint):
        raise ValueError(f"got {endpoint!r}; give HOST:PORT with a name or an IPv4 address, e.g. 10.0.0.1:29400")
    if not 1 <= int(endpoint.rpartition(":")[2]) <= LARGEST_PORT:
        raise ValueError(f"got {endpoint!r}; give a port from 1 to {LARGEST_PORT}")
    return endpoint


Endpoint = Annotated[str, AfterValidator(check_endpoint)]


class Hosts(Section):
    """Several hosts that train together.

    They change how fast a network is trained, not into what: stages read them without declaring them to DVC, which
    reruns none for another endpoint.
    """

    num_hosts: Annotated[int, Field(ge=1, le=1024)] = knob(
        1, "above 1: each training waits until fmkt join runs on the others, and shares its processes with them"
    )
    endpoint: Endpoint | None = knob(
        None,
        "of this host, as the others reach it: its name or IPv4 address in a network that you trust, and a free port",
        takes="HOST:PORT, e.g. 10.0.0.1:29400, or null",
    )
    wait_minutes: Annotated[float, Field(gt=0, le=LONGEST_WAIT)] = knob(
        10.0, "so long other hosts may be missing, then the training ends; while they prepare and compare no time runs"
    )
    silence_seconds: Annotated[float, Field(ge=3, le=3600)] = rare(
        60.0, "a host not heard of for so long is lost; one that closes its connection is at once"
    )

    @model_validator(mode="after")
    def _several_meet_somewhere(self) -> Self:
        if self.num_hosts > 1 and self.endpoint is None:
            raise ValueError(
                f"endpoint: got null for {self.num_hosts} hosts; give the name or address of this host and a free "
                "port, e.g. 10.0.0.1:29400"
            )
        return self


class ExecutionSettings(Section):
    """How training runs; a stage's own section says what it learns."""

    num_processes: Annotated[int, Field(ge=1, le=1024)] = knob(
        1, "above 1: torchrun starts so many, one device each, over all hosts, and they share every batch"
    )
    hosts: Hosts = knob(Hosts(), "where the processes run; another choice reruns nothing")
    compile: Literal["auto", "always", "never"] = rare("auto", "make networks faster by torch.compile; auto: on CUDA")
    compile_fallback: bool = rare(
        default=False, description="where compiling fails: true goes on without it, false stops"
    )

    @model_validator(mode="after")
    def _each_host_has_a_process(self) -> Self:
        if self.num_processes < self.hosts.num_hosts:
            raise ValueError(
                f"num_processes: got {self.num_processes} for {self.hosts.num_hosts} hosts; give one for each at least"
            )
        return self
