"""Tasks whose primary score is a mean over images."""

import math
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.tasks.base import ScoreChange, Task
from pipeline.tasks.significance import standard_errors_above


class MeanScoreTask(Task):
    """A task that says of each image how right the answer is, of which the primary score is the mean."""

    @abstractmethod
    def rightness(self, outputs: Outputs, truth: Truth) -> NDArray[np.float64]:
        """Return how right the answer on each image is, 0 to 1, (N,); their mean is the primary score."""

    def standard_error(self, outputs: Outputs, truth: Truth) -> float:
        """Return the standard deviation of the images' scores over the root of their number."""
        right = self.rightness(outputs, truth)
        return float(right.std() / math.sqrt(len(right)))

    def change(self, outputs: Outputs, reference: Outputs, truth: Truth, *, allowed: float) -> ScoreChange:
        """Return what is lost, by the score test of paired shares; see ``pipeline.tasks.significance``."""
        right, trained = (self.rightness(given, truth) for given in (outputs, reference))
        change = trained - right
        lost, gained = float(np.maximum(change, 0).sum()), float(np.maximum(-change, 0).sum())
        return ScoreChange(
            score=float(right.mean()),
            reference=float(trained.mean()),
            drop=(lost - gained) / len(right),
            standard_errors_above=standard_errors_above(lost, gained, len(right), allowed),
            counted=f"{lost:g} images lost, {gained:g} gained",
        )
