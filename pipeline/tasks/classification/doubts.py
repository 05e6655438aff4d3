"""When the answers of a classifier have nothing to do with the images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.significance import STANDARD_ERRORS

Labels = NDArray[np.int64]


def doubts(predicted: Labels, labels: Labels, class_names: Sequence[str]) -> list[str]:
    """Return why a classifier that answers ``predicted`` (N,) where ``labels`` (N,) are right is not to be trusted.

    It is compared with its own answers, dealt out to the images at random: by how much they are right oftener is
    Cohen's kappa, whose standard error without any connection is that of Fleiss, Cohen and Everitt (Psychological
    Bulletin 72, 1969, 323 to 327). So a class that is frequent, or answered often, counts for nothing.
    """
    count, classes = len(labels), len(class_names)
    answered = np.bincount(predicted, minlength=classes) / count
    right = np.bincount(labels, minlength=classes) / count
    if right.max() == 1.0:  # of one class alone nothing can be said
        return []
    if answered.max() == 1.0:
        return [f"answers {class_names[int(predicted[0])]!r} for each of {count} images"]
    accuracy, chance = float((predicted == labels).mean()), float(answered @ right)
    variance = (chance + chance**2 - float((answered * right) @ (answered + right))) / count  # of accuracy - chance
    if accuracy - chance >= STANDARD_ERRORS * max(variance, 0.0) ** 0.5:
        return []
    found = f"has an accuracy of {accuracy:.2%} on {count} images"
    return [f"{found}, not clearly above that of its answers dealt out at random ({chance:.2%})"]
