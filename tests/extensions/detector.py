"""A detector: FCOS whose scores are the probability of the class alone."""

from collections.abc import Sequence

from torch import Tensor

from models.detection.fcos import FcosRules


class ClassesAlone(FcosRules):
    """FCOS that does not ask whether a place is the centre of an object."""

    name = "classes_alone"

    def scores(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the probability of each class, (B, P, num_classes)."""
        return tensors[0].sigmoid()
