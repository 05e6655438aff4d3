"""The ensemble that a student is: what each of its members answers, alone and together (the paper's figure 5).

Its members are the steps of a flow at the logits, or several heads on one backbone: what answers is the mean of their
logits. Which member is the best alone is chosen on the calibration split; the figures are of the test split.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.classifier import Classifier
from models.layers.averaged_heads import AveragedHeads
from models.likelihood import centred, squared_errors
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.traced_flows import TracedFlows
from pipeline.evaluation.likelihood import MIN_VARIANCE
from pipeline.tasks.classification.targets import class_targets

Row = dict[str, Any]
COLUMNS = ("members", "member", "calib_accuracy", "accuracy", "nll", "disagreement", "diversity")
"""Of ``ensemble_rows``; ``nll`` is against the labels, in nats, ``diversity`` A_K of ``models.likelihood``."""


class Members(NamedTuple):
    """The members of an ensemble."""

    kind: str
    """What they are: ``step`` or ``head``."""
    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    """From images (B, 3, H, W) to the logits of each of K members, (K, B, num_classes)."""


def find_members(student: nn.Module, flows: TracedFlows | None, num_steps: int) -> Members | None:
    """Return the members whose mean ``student`` answers with, or its flow after ``num_steps``; None: there are none."""
    if flows is not None:
        sampled = flows.student
        if sampled.end_flow is None:
            return None  # the last state of flows at feature maps flows on: nothing is averaged
        return Members("step", sampled, lambda images: torch.stack(sampled.step_predictions(images, num_steps)))
    if isinstance(student, Classifier) and isinstance(student.head, AveragedHeads):
        heads = student.head
        return Members("head", student, lambda images: heads.each(student.features(images)))
    return None


class MemberFigures(NamedTuple):
    """What the members say of each image, (K + 1, B) each: of every member, and of their mean."""

    correct: Tensor
    nll: Tensor
    """Cross-entropy with the label, in nats."""
    disagreement: Tensor
    """Share of the other members that answer otherwise; of the mean: of all pairs of members."""
    spread: Tensor
    """|mu_i - mu_mean|^2 of centred logits; of the mean: the mean of these."""


def member_figures(logits: Tensor, labels: Tensor) -> MemberFigures:
    """Return the figures of members with ``logits`` (K, B, num_classes) where ``labels`` (B,) are right, in float64."""
    logits = logits.double()
    count, mean = len(logits), logits.mean(dim=0, keepdim=True)
    both = torch.cat([logits, mean])  # (K + 1, B, num_classes)
    answers = logits.argmax(dim=-1)  # (K, B)
    differ = (answers[:, None] != answers[None]).double().sum(dim=1) / max(count - 1, 1)
    spread = squared_errors(centred(mean[0]), centred(logits))
    return MemberFigures(
        (both.argmax(dim=-1) == labels).double(),
        -functional.log_softmax(both, dim=-1).gather(-1, labels.expand(count + 1, -1)[..., None]).squeeze(-1),
        torch.cat([differ, differ.mean(dim=0, keepdim=True)]),
        torch.cat([spread, spread.mean(dim=0, keepdim=True)]),
    )


@torch.no_grad()
def ensemble_rows(
    members: Members,
    teacher: FrozenTeacher | None,
    *,
    calib: Split,
    test: Split,
    batch_size: int,
    device: torch.device,
) -> list[Row]:
    """Return a row (see ``COLUMNS``) for each member, one for their ``mean`` and one for the ``best`` alone.

    Args:
        teacher: by whose distance on ``calib`` the diversity is measured, as in the bound of theorem 3.1; None: it has
            no measure, and is left out.
    """
    members.network.eval().to(device)
    own, found = (_means(members, split, batch_size, device) for split in (calib, test))
    variance = None if teacher is None else _variance(members, teacher, calib, batch_size, device)
    count = len(found.correct) - 1
    best = int(own.correct[:count].argmax())
    names = {**{str(i + 1): i for i in range(count)}, "mean": count, "best": best}
    return [
        {
            "members": members.kind,
            "member": name,
            "calib_accuracy": float(own.correct[i]),
            "accuracy": float(found.correct[i]),
            "nll": float(found.nll[i]),
            "disagreement": float(found.disagreement[i]),
            "diversity": None if variance is None else float(found.spread[i]) / (2 * variance),
        }
        for name, i in names.items()
    ]


def _means(members: Members, split: Split, batch_size: int, device: torch.device) -> MemberFigures:
    """Return the means of all figures over ``split``, (K + 1,) each."""
    sums: list[Tensor] = []
    for batch in ordered_batches(split, batch_size, device):
        found = member_figures(members.logits(batch.images), class_targets(batch).labels)
        parts = [figure.sum(dim=1) / len(split) for figure in found]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
    return MemberFigures(*sums)


def _variance(members: Members, teacher: FrozenTeacher, split: Split, batch_size: int, device: torch.device) -> float:
    """Return s^2, the mean of the members' squared distances from the teacher's logits, over d."""

    def distances() -> Iterator[float]:
        for batch in ordered_batches(split, batch_size, device):
            target = teacher(batch.images)[-1]  # its outputs, also where feature maps are compared as well
            logits = members.logits(batch.images)
            dims = max(logits.shape[-1] - 1, 1)
            yield float(squared_errors(centred(target), centred(logits)).mean(dim=0).sum()) / (dims * len(split))

    return max(sum(distances()), MIN_VARIANCE)
