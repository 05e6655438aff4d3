"""Labels, and the shares of the classes where images are mixed."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pipeline.core.arrays import Truth
from pipeline.data.augmentation import Geometry
from pipeline.data.batch import Batch


@dataclass(frozen=True)
class ClassTargets:
    """The classes of some images."""

    labels: Tensor
    """int64, (N,); of a mixed image the class with the larger share."""
    soft_targets: Tensor | None = None
    """float32 (N, num_classes): the share of each class where images are mixed; None: none are."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, positions: Tensor | slice) -> Self:
        """Return the targets of the images at ``positions``."""
        soft = None if self.soft_targets is None else self.soft_targets[positions]
        return type(self)(self.labels[positions], soft)

    def to(self, device: torch.device) -> Self:
        """Return the same on ``device``."""
        soft = None if self.soft_targets is None else self.soft_targets.to(device)
        return type(self)(self.labels.to(device), soft)

    def truth(self) -> Truth:
        """Return the labels (N,)."""
        return {"labels": self.labels.cpu().numpy()}

    def moved(self, geometry: Geometry) -> Self:  # noqa: ARG002  (of others)
        """Return the same: the class of an image is everywhere on it."""
        return self


def class_targets(batch: Batch) -> ClassTargets:
    """Return the targets of ``batch``, which is one of classification."""
    assert isinstance(batch.targets, ClassTargets)
    return batch.targets
