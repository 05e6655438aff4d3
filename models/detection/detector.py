"""Detectors: normalisation, backbone, pyramid and head, on a whole batch at once."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from models.backbones.backbone import Backbone
from models.detection.places import Places
from models.detection.rules import AllReduce
from models.detection.tail import PostProcessing, Tail
from models.detection.two_stage import TwoStageHead, TwoStageOutputs
from models.layers.normalize import Normalize


def alone(tensor: Tensor) -> Tensor:
    """Return the sum over all processes where there is one: ``tensor`` itself."""
    return tensor


class HeadOutputs:
    """What a detector answers at all places of a batch of images.

    Args:
        tensors: of the head, (B, P, ...), by ``places.output_names``.
        head: that answered.
    """

    def __init__(self, tensors: tuple[Tensor, ...], head: nn.Module, places: Places) -> None:
        self.tensors = tensors
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
        dtype = torch.promote_types(self.tensors[0].dtype, torch.float32)
        targets = [{"boxes": b.to(dtype), "labels": c} for b, c in zip(boxes, classes, strict=True)]
        tensors = [tensor.to(dtype) for tensor in self.tensors]
        places, anchors = self.places, self.places.anchors.to(dtype)
        return places.rules.losses(self.head, tensors, anchors, places.num_per_level, targets, all_reduce)

    def detect(self, post: PostProcessing) -> tuple[Tensor, ...]:
        """Return what is found; see ``models.detection.tail.Tail``."""
        return Tail(self.places, post).eagerly(*self.tensors)


class Detector(nn.Module):
    """Normalisation, feature backbone, feature pyramid and head.

    Args:
        levels: the stages of the backbone, counted from 1, that the pyramid takes.
        pyramid: torchvision's.
        places: where the head looks; see ``models.detection.building``.
    """

    map_name = "level"
    """What a feature map is called."""

    def __init__(
        self,
        normalize: Normalize,
        backbone: Backbone,
        levels: Sequence[int],
        pyramid: FeaturePyramidNetwork,
        head: nn.Module,
        places: Places,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.levels = tuple(levels)
        self.pyramid = pyramid
        self.head = head
        self.places = places

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels of each level of the pyramid."""
        return (self.places.rules.settings.width,) * len(self.places.strides)

    def forward(self, images: Tensor) -> Any:
        """Return what is answered at all places on images (B, 3, H, W) in [0, 1], ``HeadOutputs`` as a rule."""
        return self.from_maps(self.feature_maps(images))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the levels of the pyramid, finest first, (B, C, H', W') each."""
        return pyramid_levels(self.normalize(images), self.backbone, self.levels, self.pyramid)

    def from_maps(self, maps: Sequence[Tensor]) -> Any:
        """Return what is answered at all places of images with ``feature_maps``."""
        return answered(self.head, maps, self.places)


def pyramid_levels(
    x: Tensor, backbone: Backbone, levels: Sequence[int], pyramid: FeaturePyramidNetwork
) -> list[Tensor]:
    """Return the levels of ``pyramid`` on the stages ``levels`` of ``backbone``, for normalised images (B, 3, H, W)."""
    taken: OrderedDict[str, Tensor] = OrderedDict()
    for number, stage in enumerate(backbone.stages()[: max(levels)], start=1):
        x = stage(x)
        if number in levels:
            taken[str(number)] = x
    return list(pyramid(taken).values())


def answered(head: nn.Module, maps: Sequence[Tensor], places: Places) -> Any:
    """Return what ``head`` answers at all places of the levels ``maps``."""
    if isinstance(head, TwoStageHead):
        return TwoStageOutputs(head, list(maps), places.image_size)
    return HeadOutputs(places.rules.head_tensors(head, maps), head, places)
