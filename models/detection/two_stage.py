"""The head of two stages: proposals of regions, and what stands in each of them, by torchvision's own classes."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

from .rules import AllReduce


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
        image_size: (H, W).
    """

    def __init__(self, head: TwoStageHead, maps: list[Tensor], image_size: tuple[int, int]) -> None:
        self.head = head
        self.maps = [level.to(torch.promote_types(level.dtype, torch.float32)) for level in maps]
        self.image_size = image_size

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
        losses: dict[str, Tensor] = self.head(self.maps, self.image_size, targets)[1]
        return losses

    def detect(self, post: Any) -> tuple[Tensor, ...]:
        """Return what is found, in eval mode, in the form of ``models.detection.tail.Tail``, by torchvision's rules.

        Of ``post`` the score threshold, the IoU threshold and the number of detections count.
        """
        heads = self.head.roi_heads
        own = {"score_thresh": post.score_threshold, "nms_thresh": post.iou_threshold}
        for name, value in own.items():
            if value is not None:
                setattr(heads, name, value)
        heads.detections_per_img = post.max_detections
        with torch.autocast(self.maps[0].device.type, enabled=False):
            detections = self.head(self.maps, self.image_size)[0]
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
        functional.pad(classes, rest, value=-1).to(torch.int32),
    )
