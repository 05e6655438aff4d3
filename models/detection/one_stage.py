"""Detectors of one stage: a head answers at all places of the levels, and each answer becomes a box."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..core.precision import precise_dtype
from ..detections import Detections
from .rules import AllReduce, Rules
from .tail import Tail

if TYPE_CHECKING:
    from .places import Places


def alone(tensor: Tensor) -> Tensor:
    """Return the sum over all processes where there is one: ``tensor`` itself."""
    return tensor


class HeadOutputs:
    """What a detector answers at all places of a batch of images.

    Args:
        tensors: of the head, (B, P, ...), by ``places.output_names``.
        head: that answered.
        rules: its own.
    """

    def __init__(self, tensors: tuple[Tensor, ...], head: nn.Module, places: Places, rules: OneStageRules) -> None:
        self.tensors = tensors
        self.rules = rules
        self.head = head
        self.places = places

    def losses(
        self, boxes: Sequence[Tensor], classes: Sequence[Tensor], *, all_reduce: AllReduce = alone
    ) -> dict[str, Tensor]:
        """Return the detector's own losses in float32 at least, scalars; an image may have no object.

        Args:
            boxes, classes: of each image, (m, 4) x1, y1, x2, y2 in pixels, and (m,).
            all_reduce: sums over the processes that share the batch.
        """
        dtype = precise_dtype(self.tensors[0])
        targets = [{"boxes": b.to(dtype), "labels": c} for b, c in zip(boxes, classes, strict=True)]
        tensors = [tensor.to(dtype) for tensor in self.tensors]
        return self.rules.losses(self.head, tensors, self.places, targets, all_reduce)

    def detect(self, post: Detections) -> tuple[Tensor, ...]:
        """Return what is found; see ``models.detection.tail.Tail``."""
        return Tail(self.places, post).eagerly(*self.tensors)


class OneStageRules(Rules):
    """A kind of detector whose head answers at all places."""

    @abstractmethod
    def head_tensors(self, head: nn.Module, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what ``head`` answers at all places (B, P, ...) of the levels, by ``output_names``."""

    @abstractmethod
    def losses(
        self,
        head: nn.Module,
        tensors: Sequence[Tensor],
        places: Places,
        targets: list[dict[str, Tensor]],
        all_reduce: AllReduce,
    ) -> dict[str, Tensor]:
        """Return torchvision's losses of the head's ``tensors``; scalars, by torchvision's names.

        Where several processes share a batch their mean is the loss of the whole batch.

        Args:
            targets: of each image ``boxes`` (m, 4) in pixels and ``labels`` (m,).
        """

    @abstractmethod
    def scores(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return how sure each class is at each place, (B, P, num_classes), 0 to 1."""

    @abstractmethod
    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Return the boxes (B, k, 4) x1, y1, x2, y2 in pixels that ``regression`` (B, k, 4) says of ``anchors``."""

    def answered(self, head: nn.Module, maps: Sequence[Tensor], places: Places) -> HeadOutputs:
        """Return what ``head`` answers at all places of the levels ``maps``."""
        return HeadOutputs(self.head_tensors(head, maps), head, places, self)
