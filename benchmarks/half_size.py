"""A student that sees images at half their size, beside a teacher that sees all of them.

As ``distill_student.backbone: python:benchmarks/half_size.py:resnet8_x0_5``.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from models.core.calling import call
from models.factory import build_transfer_parts


class HalfSize(nn.Module):
    """The classifier ``name`` on averages of 2 x 2 pixels."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.head = build_transfer_parts(name, num_classes)

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """Return what leads from images to feature maps, one after the other."""
        first, *others = self.backbone.stages()
        return [lambda images: first(functional.avg_pool2d(images, 2)), *others]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W)."""
        for stage in self.stages():
            images = stage(images)
        return call(self.head, images)


def resnet8_x0_5(num_classes: int) -> nn.Module:
    """Return the pipeline's ``resnet8_x0_5`` at half size."""
    return HalfSize("resnet8_x0_5", num_classes)
