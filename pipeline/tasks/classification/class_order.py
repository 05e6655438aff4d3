"""Whether a classifier is right in another order of its classes than that of the data."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.tasks.significance import STANDARD_ERRORS, standard_errors_above

Labels = NDArray[np.int64]
KNOWN_ERRORS = 3.0
"""Standard errors by which one of a few known orders must be better than that of the data."""
FITTED_ERRORS = 4.0
"""Standard errors by which an order that was fitted must be better, on other images than it was fitted to."""
STAY = 1e-3
"""Images that speak for a class staying in its place, where no image says anything."""


class Order(NamedTuple):
    """An order of classes, and how well a classifier does in it."""

    name: str
    """What it is, after "in"."""
    classes: Labels
    """The class that each output stands for."""
    accuracy: float
    """On images that it was not fitted to."""


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return what sorts numbers in names by their value: 1, 2, 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


KNOWN: tuple[tuple[str, Callable[[Sequence[str]], list[str]]], ...] = (
    ("the natural order of numbers (1, 2, 10)", lambda names: sorted(names, key=_natural)),
    ("the order without regard to case", lambda names: sorted(names, key=str.casefold)),
    ("the order of their characters' codes", sorted),
    ("reversed order", lambda names: [*names][::-1]),
)
"""Orders in which other programs list the names of classes."""


def better_order(answers: Labels, labels: Labels, class_names: Sequence[str]) -> Order | None:
    """Return an order in which ``answers`` (N,) are right clearly oftener than as they are; None where there is none.

    The one that fits best (an assignment of outputs to classes) is found on one half of the images and judged on the
    other, and the other way round; a known order that does as well is preferred, since it says why.

    Args:
        labels: the right classes (N,).
    """
    as_it_is = answers == labels
    found, right = _fitted(answers, labels, len(class_names))
    best: Order | None = None
    if _gain(right, as_it_is) >= FITTED_ERRORS:
        best = Order("another order", found, float(right.mean()))
    positions = {name: i for i, name in enumerate(class_names)}
    for name, sort in KNOWN:
        order = np.array([positions[one] for one in sort(class_names)])
        now = order[answers] == labels
        is_known = _gain(now, as_it_is) >= KNOWN_ERRORS
        if is_known and (best is None or _gain(right, now) < STANDARD_ERRORS):
            return Order(name, order, float(now.mean()))
    return best


def _gain(right: NDArray[np.bool_], before: NDArray[np.bool_]) -> float:
    """Return by how many standard errors ``right`` (N,) is right oftener than ``before``; at least 0."""
    gained, lost = int((right & ~before).sum()), int((before & ~right).sum())
    return standard_errors_above(gained, lost, len(right), 0.0)


def _fitted(answers: Labels, labels: Labels, num_classes: int) -> tuple[Labels, NDArray[np.bool_]]:
    """Return the order that fits all images, and which are right in the order that fits the other half."""
    half = _halves(labels)
    right = np.zeros(len(labels), dtype=bool)
    for part in (half, ~half):
        order = _assignment(answers[~part], labels[~part], num_classes)
        right[part] = order[answers[part]] == labels[part]
    return _assignment(answers, labels, num_classes), right


def _halves(labels: Labels) -> NDArray[np.bool_]:
    """Return every other image of each class."""
    half = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        half[np.flatnonzero(labels == label)[::2]] = True
    return half


def _assignment(answers: Labels, labels: Labels, num_classes: int) -> Labels:
    """Return the class of each output, each class once, with which most ``answers`` are right.

    Only what images show can change places, so that the table is no larger than they are many.
    """
    shown = np.union1d(answers, labels)
    counts = STAY * np.eye(len(shown))
    np.add.at(counts, (np.searchsorted(shown, answers), np.searchsorted(shown, labels)), 1)
    classes: Labels = np.arange(num_classes)
    classes[shown] = shown[linear_sum_assignment(counts, maximize=True)[1]]
    return classes
