"""Faster R-CNN, by torchvision's own class, on the levels of a pyramid: a teacher."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from .places import Places
from .rules import Rules, Stub
from .two_stage import TwoStageHead, TwoStageOutputs

SIZE = 8
"""The anchor of a level, in strides: 32 pixels at a stride of 4, as torchvision has it."""
RATIOS = (0.5, 1.0, 2.0)
POOLED, SAMPLES = 7, 2
"""Cells of a region's side, and samples of a cell's, as torchvision has them."""


class FasterRcnnRules(Rules):
    """Faster R-CNN (Ren et al. 2015), as torchvision has it; the coarsest level proposes regions alone."""

    name = "faster_rcnn"
    published_names: ClassVar[tuple[tuple[str, str], ...]] = ((r"^(rpn|roi_heads)\.", r"head.\1."),)

    def build_head(self) -> nn.Module:
        """Return both stages with random weights."""
        settings = self.settings
        names = [str(i) for i in range(max(1, len(settings.strides) - 1))]
        model = FasterRCNN(
            Stub(settings.width),
            settings.num_classes + 1,
            rpn_anchor_generator=self.anchor_generator(),
            box_roi_pool=MultiScaleRoIAlign(names, POOLED, SAMPLES),
        )
        return TwoStageHead(model.rpn, model.roi_heads)

    def anchor_generator(self) -> AnchorGenerator:
        """Return anchors of one size and three shapes at each place."""
        sizes = tuple((SIZE * stride,) for stride in self.settings.strides)
        return AnchorGenerator(sizes, (RATIOS,) * len(sizes))

    def answered(self, head: nn.Module, maps: Sequence[Tensor], places: Places) -> TwoStageOutputs:
        """Return what finds objects on the levels ``maps`` when it is asked to."""
        assert isinstance(head, TwoStageHead)
        return TwoStageOutputs(head, maps, places)
