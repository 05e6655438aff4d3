"""What a training shows that its results should not be trusted for, the likely cause, and the key to change."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pipeline.core.errors import DivergedError
from pipeline.tasks.significance import STANDARD_ERRORS
from pipeline.tasks.training import NOTHING_FOUND, GivenCheck, Supervision, Validation

DIVERGED = 1.5
"""Times the loss of a fresh network, above which a training has diverged."""
NOTHING_LEARNED = 0.98
"""Times the loss of guessing, above which nothing has been learned."""
FITTED = 0.8
"""Times the loss of guessing, below which the training images have been learned."""
EARLY = 0.25
"""Share of a training after which something should have been learned."""
Row = Mapping[str, Any]


def training_warnings(
    rows: Sequence[Row],
    validation: Validation,
    supervision: Supervision,
    *,
    what: str,
    key: str,
    teacher: Validation | None = None,
) -> list[str]:
    """Return a line on each reason to doubt a training that has ended.

    Args:
        rows: the figures of its epochs.
        validation: of the trained network, on images that it was not trained on.
        what: names the network, as "the teacher".
        key: of the settings of the training, as ``train_teacher.training``.
        teacher: of the network that it learned from, on the same images.
    """
    level = _level(rows[-1], supervision)
    images_suffice = teacher is not None and not teacher.doubts
    if level > NOTHING_LEARNED or _has_diverged(rows[-1], supervision):
        found = [_not_learned(rows[-1], supervision, what=what, key=key)]
        return found + [f"{what} {doubt}" for doubt in validation.doubts]
    cause = (
        "the training images are learned, others are not: there are too few for this network, or they are of another "
        f"kind; add images, augment more ({key}.augment), take a smaller backbone"
        if level < FITTED and not images_suffice
        else f"train longer ({key}.epochs, {key}.min_epoch_steps), or change {key}.optimizer.learning_rate"
    )
    return [f"{what} {doubt}; {cause}" for doubt in validation.doubts]


def early_warning(row: Row, supervision: Supervision, *, key: str, epochs: int) -> str | None:
    """Return why a training that goes on leads nowhere, after the epoch of ``row``; None where it may lead somewhere.

    A loss far above that of guessing counts from the second epoch on, one that has not fallen from a quarter on.
    """
    epoch = row["epoch"]
    has_had_time = epoch >= EARLY * epochs and _level(row, supervision) > NOTHING_LEARNED
    if epoch < 2 or not (has_had_time or _has_diverged(row, supervision)):
        return None
    return f"epoch {epoch} of {epochs}: {_not_learned(row, supervision, what='the network', key=key)}"


def weak_teacher(student: Validation, teacher: Validation, primary: str, *, in_words: str) -> str | None:
    """Return a line where the ``teacher`` is clearly worse than its ``student`` on the same images; else None.

    Args:
        primary: the score that decides, and what a sentence calls it.
    """
    ours, theirs = student.scores[primary], teacher.scores[primary]
    if student.standard_error is None or teacher.standard_error is None:
        return None
    error = math.hypot(student.standard_error, teacher.standard_error)
    if ours - theirs <= STANDARD_ERRORS * error:
        return None
    return (
        f"the teacher ({in_words} {theirs:.2%}) is worse than its student ({ours:.2%}) on the calibration images, so "
        "it holds the student back: train it longer (train_teacher.training), take a larger train_teacher.backbone, "
        "or, of given weights, check the order of the classes and train_teacher.mean and std"
    )


def given_weights_warnings(
    validation: Validation, *, what: str, section: str, check: GivenCheck = NOTHING_FOUND
) -> list[str]:
    """Return a line on each reason to doubt a network that was not trained here.

    Args:
        what: names it, as "the given teacher".
        section: its section of the parameters file.
        check: what was found of it on the calibration images.
    """
    remark = f" ({check.remark})" if check.remark else ""
    if check.explanation is not None:
        doubts = " and ".join(validation.doubts) or "is not in the order of the data"
        return [f"{what} {doubts}; {check.explanation}"]
    return [
        f"{what} {doubt}; its classes must stand in the order of data.json (sorted folder names), and "
        f"{section}.mean and std must be those of its training{remark}"
        for doubt in validation.doubts
    ]


def require_finite(network: nn.Module, *, key: str) -> None:
    """Raise DivergedError where weights or running statistics of a trained ``network`` are not finite.

    The last update of a training may break what the losses before it did not show.
    """
    values = (value for value in (*network.parameters(), *network.buffers()) if value.is_floating_point())
    if not all(bool(value.isfinite().all()) for value in values):
        raise DivergedError(
            f"training diverged: the weights are not finite after its last step; lower {key}.optimizer.learning_rate, "
            f"or set {key}.clip_norm, e.g. to 1.0"
        )


def _level(row: Row, supervision: Supervision) -> float:
    """Return the loss as a multiple of that of guessing; nan, which is above and below nothing, where none is known."""
    guess = math.nan if supervision.guess_loss is None else supervision.guess_loss
    return float(row[supervision.loss_name]) / guess


def _has_diverged(row: Row, supervision: Supervision) -> bool:
    return float(row[supervision.loss_name]) > DIVERGED * supervision.fresh_loss


def _not_learned(row: Row, supervision: Supervision, *, what: str, key: str) -> str:
    name = supervision.loss_name
    guess = supervision.guess_loss
    usual = f"guessing gives {guess:.4g}" if guess else f"random weights give about {supervision.fresh_loss:.2g}"
    figures = f"{name} {row[name]:.4g}, {usual}"
    if _has_diverged(row, supervision):
        return (
            f"the training of {what} has diverged ({figures}); lower {key}.optimizer.learning_rate, raise "
            f"{key}.schedule.warmup_epochs, or set {key}.clip_norm, e.g. to 1.0"
        )
    return (
        f"{what} has learned nothing ({figures}); lower {key}.optimizer.learning_rate, or, where it is small already, "
        f"raise it or train longer ({key}.epochs, {key}.min_epoch_steps)"
    )
