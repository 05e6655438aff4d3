"""Optimizer, learning-rate schedule, and the average of the weights."""

import bisect
import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.training.settings import LearningRate
from pipeline.training.settings import Optimizer as OptimizerSettings

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
"""Where one cycle begins and ends, as shares of its peak: those of PyTorch's ``OneCycleLR``."""


def learning_rate_factor(epoch: float, schedule: LearningRate, *, epochs: int) -> float:
    """Return what the base learning rate is multiplied by at ``epoch``, counted in epochs from 0 and fractions of them.

    After a linear warm-up over ``warmup_epochs`` ``cosine`` falls to 0 at ``epochs``, and ``multistep`` multiplies by
    ``gamma`` at each of ``milestones``. ``one_cycle`` rises over ``warmup_epochs`` and falls, both along a cosine
    (Smith and Topin 2019).
    """
    name, warmup_epochs = schedule.name, schedule.warmup_epochs
    if name == "one_cycle" and epoch < warmup_epochs:
        return _along_cosine(ONE_CYCLE_START, 1.0, epoch / warmup_epochs)
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    if name == "multistep":
        return float(schedule.gamma ** bisect.bisect_right(sorted(schedule.milestones), epoch))
    rest = epochs - warmup_epochs
    progress = min((epoch - warmup_epochs) / rest, 1.0) if rest > 0 else 1.0
    return _along_cosine(1.0, ONE_CYCLE_END if name == "one_cycle" else 0.0, progress)


def _along_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(
    network: nn.Module,
    settings: OptimizerSettings,
    schedule: LearningRate,
    *,
    steps_per_epoch: int,
    epochs: int,
    slowed: Collection[nn.Parameter] = (),
    slowed_factor: float = 1.0,
) -> tuple[Optimizer, LambdaLR]:
    """Return the optimizer of all parameters of ``network`` and a scheduler to be stepped after every batch.

    Args:
        slowed: parameters of ``network``, not all, whose learning rate is ``slowed_factor`` times that of the others.
    """
    parameters = list(network.parameters())
    apart = {id(p) for p in slowed} if slowed_factor != 1.0 else set()
    rate = settings.learning_rate
    used = [
        *_groups([p for p in parameters if id(p) not in apart], settings, rate),  # the first has the rate that is shown
        *_groups([p for p in parameters if id(p) in apart], settings, slowed_factor * rate),
    ]
    optimizer: Optimizer
    if settings.name == "adamw":
        optimizer = AdamW(used, lr=rate, betas=settings.betas, fused=True)
    else:
        optimizer = SGD(used, lr=rate, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)
        if settings.momentum:  # PyTorch's fused step leaves it uninitialised where fp16 overflows in the first step
            optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in parameters})

    def factor(step: int) -> float:  # the first step of a warm-up already moves
        return learning_rate_factor((step + 0.5) / steps_per_epoch, schedule, epochs=epochs)

    return optimizer, LambdaLR(optimizer, factor)


def _groups(parameters: list[nn.Parameter], settings: OptimizerSettings, rate: float) -> list[dict[str, Any]]:
    """Return ``parameters`` in groups of one weight decay."""
    decayed = [p for p in parameters if settings.decay_all or p.dim() > 1]
    exempt = [p for p in parameters if not settings.decay_all and p.dim() <= 1]  # biases, and the weights of norms
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay, "lr": rate},
        {"params": exempt, "weight_decay": 0.0, "lr": rate},
    ]
    return [group for group in groups if group["params"]]


class WeightAverage:
    """Exponential moving average of a network's weights and running statistics.

    After step n the decay is min(d, (1 + n) / (10 + n)), so that the first weights are soon forgotten.

    Args:
        decay: d; None: of what is not ``apart`` there is no average.
        apart: parameters of ``network`` with a d of their own, and that d.
    """

    def __init__(
        self, network: nn.Module, decay: float | None, apart: tuple[Sequence[nn.Parameter], float] | None = None
    ) -> None:
        own, own_decay = apart or ((), 0.0)
        separate = {id(x) for x in own}
        others = [
            x for x in (*network.parameters(), *network.buffers()) if x.is_floating_point() and id(x) not in separate
        ]
        self.num_updates = 0
        self.live: list[Tensor] = [*(() if decay is None else others), *own]
        self.decays = [decay or 0.0] * (len(self.live) - len(own)) + [own_decay] * len(own)
        self.average = [x.detach().clone() for x in self.live]

    def update(self) -> None:
        """Take in the present weights."""
        self.num_updates += 1
        for most in set(self.decays):
            decay = min(most, (1 + self.num_updates) / (10 + self.num_updates))
            live, average = (
                [x.detach() for x, own in zip(tensors, self.decays, strict=True) if own == most]
                for tensors in (self.live, self.average)
            )
            get_ema_multi_avg_fn(decay)(average, live, self.num_updates)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the weights of the network for their average as long as the block lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for live, average in zip(self.live, self.average, strict=True):
            present = live.clone()
            live.copy_(average)
            average.copy_(present)

    def install(self) -> None:
        """Leave the average in the network for good."""
        self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"num_updates": self.num_updates, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        self.num_updates = state["num_updates"]
        with torch.no_grad():
            for own, saved in zip(self.average, state["average"], strict=True):
                own.copy_(saved)
