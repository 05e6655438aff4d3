"""Figures of merit of predicted logits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


class Scores(NamedTuple):
    """How good a set of predictions is."""

    accuracy: float
    """Share of images whose largest logit is the label's."""
    nll: float
    """Mean negative log-likelihood of the labels, in nats."""
    ece: float
    """Expected calibration error; see ``expected_calibration_error``."""


def score(logits: Logits, labels: Labels) -> Scores:
    """Return the scores of ``logits`` (N, C) against ``labels`` (N,)."""
    log_probabilities = log_softmax(logits)
    nll = -log_probabilities[np.arange(len(labels)), labels].mean()
    correct = logits.argmax(axis=1) == labels
    confidence = np.exp(log_probabilities.max(axis=1))
    return Scores(float(correct.mean()), float(nll), expected_calibration_error(confidence, correct))


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Return log(softmax(logits)) over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def expected_calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], num_bins: int = 15
) -> float:
    """Return sum_b (n_b / n) |accuracy_b - confidence_b| over equal-width bins (Guo et al. 2017).

    ``confidence`` (N,) is the probability of the predicted class, ``correct`` (N,) whether it was right.
    """
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))
