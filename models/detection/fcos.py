"""FCOS, by torchvision's own class, on a batch of feature maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead

from .one_stage import OneStageRules
from .places import Places
from .rules import AllReduce, Stub, require_normalisable

GROUPS = 32
"""Of the head's group normalisations."""


class CountingHead(FCOSHead):  # type: ignore[misc]
    """FCOS's head, which notes how many places learn an object: all of a batch share in the mean over them."""

    num_positives: Tensor
    """Of the last losses; int64, scalar."""

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the losses, each divided by the number of places that learn an object."""
        self.num_positives = torch.stack([(matched >= 0).sum() for matched in matched_idxs]).sum()
        losses: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        return losses


class FcosRules(OneStageRules):
    """FCOS (Tian et al. 2019), as torchvision has it."""

    name = "fcos"
    output_names = ("class_logits", "box_regression", "centerness")

    def build_head(self) -> nn.Module:
        """Return the head with random weights; raises ValueError where its groups do not fit the width."""
        settings = self.settings
        if settings.width % GROUPS:
            below = settings.width // GROUPS * GROUPS
            near = f"{below} or {below + GROUPS}" if below else str(GROUPS)
            raise ValueError(
                f"detector.width: got {settings.width}; FCOS normalises groups of its channels, so give a multiple "
                f"of {GROUPS}, e.g. {near}"
            )
        require_normalisable(settings, GROUPS)
        head: nn.Module = CountingHead(settings.width, 1, settings.num_classes, settings.num_convs)
        return head

    def anchor_generator(self) -> AnchorGenerator:
        """Return one anchor at each place, as large as the stride."""
        strides = self.settings.strides
        return AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))

    def head_tensors(self, head: nn.Module, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return class logits (B, P, C), distances of the sides (B, P, 4) and centerness (B, P, 1)."""
        found = head(list(maps))
        return found["cls_logits"], found["bbox_regression"], found["bbox_ctrness"]

    def losses(
        self,
        head: nn.Module,
        tensors: Sequence[Tensor],
        places: Places,
        targets: list[dict[str, Tensor]],
        all_reduce: AllReduce,
    ) -> dict[str, Tensor]:
        """Return the losses of classes, boxes and centres over the places that learn an object, of all processes."""
        settings = self.settings
        model = FCOS(
            Stub(settings.width),
            settings.num_classes,
            anchor_generator=self.anchor_generator(),
            head=head,
            center_sampling_radius=settings.center_sampling_radius,
        )
        outputs = dict(zip(("cls_logits", "bbox_regression", "bbox_ctrness"), tensors, strict=True))
        anchors = [places.anchors.to(tensors[0].dtype)] * len(targets)
        losses: dict[str, Tensor] = model.compute_loss(targets, outputs, anchors, places.num_per_level)
        assert isinstance(head, CountingHead)
        own = head.num_positives
        total, num_processes = all_reduce(torch.stack([own, torch.ones_like(own)]).double())
        share = own.clamp(min=1) * num_processes / total.clamp(min=1)
        return {name: loss * share.to(loss.dtype) for name, loss in losses.items()}

    def scores(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the root of the probability of the class times that of the place to be an object's centre."""
        logits, _, centerness = tensors
        return (logits.sigmoid() * centerness.sigmoid()).sqrt()

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Return the boxes whose sides are so many strides from the places."""
        boxes: Tensor = BoxLinearCoder(normalize_by_size=True).decode(regression, anchors)
        return boxes
