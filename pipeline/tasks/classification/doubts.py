"""When the answers of a classifier are not worth more than guessing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]

CLEARLY = 2.0
"""Standard errors by which an accuracy must lie above that of guessing."""


def doubts(predicted: Labels, labels: Labels, class_names: Sequence[str]) -> list[str]:
    """Return why a classifier that answers ``predicted`` (N,) where ``labels`` (N,) are right is not to be trusted.

    Guessing is to answer the most frequent class always: its accuracy is that class's share p, with a standard error of
    sqrt(p (1 - p) / N) on the images at hand.
    """
    count = len(labels)
    shares = np.bincount(labels, minlength=len(class_names)) / count
    guess = float(shares.max())
    if guess == 1.0:  # of one class alone nothing can be said
        return []
    first = int(predicted[0])
    if (predicted == first).all():
        return [f"answers {class_names[first]!r} for each of {count} images"]
    accuracy = float((predicted == labels).mean())
    if accuracy > guess + CLEARLY * (guess * (1 - guess) / count) ** 0.5:
        return []
    found, most = f"has an accuracy of {accuracy:.2%} on {count} images", class_names[int(shares.argmax())]
    return [f"{found}, not clearly above that of answering {most!r} always ({guess:.2%})"]
