"""Metric losses by name, with their settings filled in."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from models.choice import choose
from models.losses import dist_loss, dkd_loss, kd_loss, mse_loss, pkd_loss
from pipeline.core.distributed import all_gather


class Criterion(Protocol):
    """L(student, teacher) of one batch."""

    def __call__(self, student: Tensor, teacher: Tensor, *, labels: Tensor, epoch: int) -> Tensor:
        """Return a scalar; ``labels`` (B,), ``teacher`` (B, ...), ``epoch`` counts from 0.

        ``student`` is shaped like ``teacher``, with a leading dimension of steps where there are several; the loss is
        the mean over them. Where several processes train together it is that of the whole batch in each.
        """


class Entry(NamedTuple):
    """A metric loss in the table."""

    function: Callable[..., Tensor]
    takes_labels: bool = False


LOSSES = {
    "kd": Entry(kd_loss),
    "dkd": Entry(dkd_loss, takes_labels=True),
    "dist": Entry(dist_loss),
    "pkd": Entry(pkd_loss),
    "mse": Entry(mse_loss),
}


def build_criterion(name: str, settings: Mapping[str, Mapping[str, Any]]) -> Criterion:
    """Return the metric loss ``name`` with its entry of ``settings`` filled in.

    An entry may have ``warmup_epochs``: over so many epochs the loss grows linearly to its full weight.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    function, takes_labels = choose(LOSSES, name, kind="loss")
    options = dict(settings.get(name, {}))
    warmup_epochs = options.pop("warmup_epochs", 0)

    def metric(student: Tensor, teacher: Tensor, *, labels: Tensor, epoch: int) -> Tensor:
        tensors = [all_gather(student, dim=student.dim() - teacher.dim()), all_gather(teacher)]
        if takes_labels:
            tensors.append(all_gather(labels))
        weight = min((epoch + 1) / warmup_epochs, 1.0) if warmup_epochs else 1.0
        return weight * function(*tensors, **options)

    return metric
