"""The head of two stages: proposals of regions, and what stands in each of them, by torchvision's own classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

from ..core.precision import at_least_float32
from ..detections import Detections
from .rules import AllReduce
from .tail import NO_CLASS

if TYPE_CHECKING:
    from .places import Places


class TwoStageHead(nn.Module):
    """torchvision's region proposal network and region heads.

    Args:
        rpn, roi_heads: of a ``torchvision.models.detection.FasterRCNN``, whose class 0 is the background.
    """

    def __init__(self, rpn: nn.Module, roi_heads: nn.Module) -> None:
        super().__init__()
        self.rpn = rpn
        self.roi_heads = roi_heads

    def forward(
        self, maps: Sequence[Tensor], image_size: tuple[int, int], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return the detections of each image, in eval mode, and the losses, in training."""
        batch = len(maps[0])
        images = ImageList(maps[0].new_zeros(()).expand(batch, 3, *image_size), [image_size] * batch)
        features = OrderedDict((str(i), level) for i, level in enumerate(maps))
        proposals, losses = self.rpn(images, features, targets)
        detections, more = self.roi_heads(features, proposals, images.image_sizes, targets)
        return detections, {**losses, **more}


class TwoStageOutputs:
    """What a detector of two stages finds on a batch of images, computed in float32 at least when it is asked for.

    Args:
        maps: the levels of the pyramid.
    """

    def __init__(self, head: TwoStageHead, maps: Sequence[Tensor], places: Places) -> None:
        self.head = head
        self.places = places
        self.maps = [at_least_float32(level) for level in maps]

    def losses(
        self,
        boxes: Sequence[Tensor],
        classes: Sequence[Tensor],
        *,
        all_reduce: AllReduce | None = None,  # noqa: ARG002  (each image has as many samples as another)
    ) -> dict[str, Tensor]:
        """Return torchvision's losses of both stages, scalars; arguments as of ``one_stage.HeadOutputs.losses``."""
        dtype = self.maps[0].dtype
        targets = [{"boxes": box.to(dtype), "labels": label + 1} for box, label in zip(boxes, classes, strict=True)]
        losses: dict[str, Tensor] = self.head(self.maps, self.places.image_size, targets)[1]
        return losses

    def detect(self, post: Detections) -> tuple[Tensor, ...]:
        """Return what is found, in eval mode, in the form of ``models.detection.tail.Tail``, by torchvision's rules.

        Of ``post`` the score threshold, the IoU threshold and the number of detections count.
        """
        heads: Any = self.head.roi_heads
        shown = self.places.entry.filled(post)
        heads.score_thresh, heads.nms_thresh = shown.score_threshold, shown.iou_threshold
        heads.detections_per_img = shown.max_detections
        with torch.autocast(self.maps[0].device.type, enabled=False):
            detections = self.head(self.maps, self.places.image_size)[0]
        found = [padded(image, post.max_detections) for image in detections]
        return tuple(torch.stack(column) for column in zip(*found, strict=True))


def padded(found: dict[str, Tensor], count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return number (1,), boxes (count, 4), scores (count,) and classes (count,) of torchvision's detections."""
    boxes, scores, classes = found["boxes"], found["scores"], found["labels"] - 1
    num, rest = len(boxes), (0, count - len(boxes))
    return (
        torch.tensor([num], dtype=torch.int32, device=boxes.device),
        functional.pad(boxes, (0, 0, *rest)),
        functional.pad(scores, rest),
        functional.pad(classes, rest, value=NO_CLASS).to(torch.int32),
    )
