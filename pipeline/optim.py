"""Optimiser and learning-rate schedule."""

import bisect
import math
from collections.abc import Sequence

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR


def learning_rate_factor(
    epoch: float, *, epochs: int, name: str, warmup_epochs: int, milestones: Sequence[int], gamma: float
) -> float:
    """Return what the base learning rate is multiplied by at ``epoch``, counted in epochs from 0 and fractions of them.

    Linear warm-up over ``warmup_epochs``; then ``cosine`` falls to 0 at ``epochs``, and ``multistep`` multiplies by
    ``gamma`` at each of ``milestones``.
    """
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    if name == "multistep":
        return float(gamma ** bisect.bisect_right(sorted(milestones), epoch))
    progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_optimizer(
    network: nn.Module,
    *,
    steps_per_epoch: int,
    epochs: int,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay_all: bool,
    schedule: dict[str, object],
) -> tuple[SGD, LambdaLR]:
    """Return SGD over all parameters of ``network`` and a scheduler to be stepped after every batch.

    ``decay_all`` False spares biases and the weights of normalisation from weight decay. ``schedule`` holds the
    remaining arguments of ``learning_rate_factor``.
    """
    parameters = list(network.parameters())
    decayed = [p for p in parameters if decay_all or p.dim() > 1]
    exempt = [p for p in parameters if not decay_all and p.dim() <= 1]  # biases, and the weights of norms
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    optimizer = SGD(
        [group for group in groups if group["params"]], lr=learning_rate, momentum=momentum, nesterov=nesterov
    )

    def factor(step: int) -> float:  # the first step of a warm-up already moves
        return learning_rate_factor((step + 0.5) / steps_per_epoch, epochs=epochs, **schedule)  # type: ignore[arg-type]

    return optimizer, LambdaLR(optimizer, factor)
