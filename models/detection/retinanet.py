"""RetinaNet, by torchvision's own class, on a batch of feature maps."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from .one_stage import OneStageRules
from .places import Places
from .rules import AllReduce, Stub, require_normalisable

NUM_CONVS = 4
"""Convolutions of each branch of the head; torchvision has no other."""
SIZE = 4
"""The smallest anchor of a level, in strides."""
RATIOS = (0.5, 1.0, 2.0)
"""Height to width of anchors."""
GROUPS = 32
"""Of the second version's group normalisations."""


class RetinaNetRules(OneStageRules):
    """RetinaNet (Lin et al. 2017), as torchvision has it."""

    name = "retinanet"
    output_names = ("class_logits", "box_regression")
    published_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^(head\.\w+_head\.conv)\.(\d)\.(weight|bias)$", r"\1.\2.0.\3"),
    )

    def build_head(self) -> nn.Module:
        """Return the head with random weights; raises ValueError for another number of convolutions than four."""
        settings = self.settings
        if settings.num_convs != NUM_CONVS:
            raise ValueError(f"detector.num_convs: got {settings.num_convs}; RetinaNet's branches have {NUM_CONVS}")
        return self._head()

    def _head(self) -> nn.Module:
        head: nn.Module = RetinaNetHead(self.settings.width, self._num_anchors(), self.settings.num_classes)
        return head

    def _num_anchors(self) -> int:
        return int(self.anchor_generator().num_anchors_per_location()[0])

    def anchor_generator(self) -> AnchorGenerator:
        """Return anchors of three sizes and three shapes at each place."""
        smallest = [SIZE * stride for stride in self.settings.strides]
        sizes = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in smallest)
        return AnchorGenerator(sizes, (RATIOS,) * len(sizes))

    def head_tensors(self, head: nn.Module, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return class logits (B, P, C) and changes of the anchors (B, P, 4)."""
        found = head(list(maps))
        return found["cls_logits"], found["bbox_regression"]

    def losses(
        self,
        head: nn.Module,
        tensors: Sequence[Tensor],
        places: Places,
        targets: list[dict[str, Tensor]],
        all_reduce: AllReduce,  # noqa: ARG002  (each image is divided by its own number of positives)
    ) -> dict[str, Tensor]:
        """Return the losses of classes and boxes: the mean over images of those over an image's positive anchors."""
        settings = self.settings
        model = RetinaNet(
            Stub(settings.width), settings.num_classes, anchor_generator=self.anchor_generator(), head=head
        )
        outputs = dict(zip(("cls_logits", "bbox_regression"), tensors, strict=True))
        anchors = [places.anchors.to(tensors[0].dtype)] * len(targets)
        losses: dict[str, Tensor] = model.compute_loss(targets, outputs, anchors)
        return losses

    def scores(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the probability of each class."""
        return tensors[0].sigmoid()

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Return the anchors, moved and resized."""
        coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        boxes: Tensor = coder.decode_single(regression.flatten(0, 1), anchors.flatten(0, 1))
        return boxes.reshape(regression.shape)


class RetinaNetV2Rules(RetinaNetRules):
    """RetinaNet as torchvision's second version has it: group normalisation in the head, and the GIoU loss."""

    name = "retinanet_v2"
    published_names: ClassVar[tuple[tuple[str, str], ...]] = ()

    def _head(self) -> nn.Module:
        settings = self.settings
        if settings.width % GROUPS:
            raise ValueError(
                f"detector.width: got {settings.width}; the head has {GROUPS} groups of channels, give a multiple"
            )
        require_normalisable(settings, GROUPS)
        norm = partial(nn.GroupNorm, GROUPS)
        head: nn.Module = RetinaNetHead(settings.width, self._num_anchors(), settings.num_classes, norm_layer=norm)
        head.regression_head._loss_type = "giou"  # type: ignore[union-attr]  # noqa: SLF001  (as torchvision sets it)
        return head
