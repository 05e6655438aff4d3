"""Shape transforms T: from the student's feature space to the space in which the teacher is compared."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.calling import call


class LogitTransform(nn.Module):
    """Global average pooling and a linear classifier: features (B, C, H, W) to logits (B, num_classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return call(self.linear, features.mean(dim=(2, 3)))


class FeatureTransform(nn.Module):
    """1x1 convolution to the teacher's channels, then bilinear interpolation where the teacher's map has another size.

    Maps features (B, C, H, W) to (B, C', H', W').
    """

    def __init__(self, channels: int, teacher_channels: int, teacher_size: tuple[int, int]) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, teacher_channels, 1)
        self.size = teacher_size

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` in the teacher's shape (B, C', H', W')."""
        projected = call(self.project, features)  # (B, C', H, W)
        if projected.shape[2:] == self.size:
            return projected
        return nn.functional.interpolate(projected, self.size, mode="bilinear", align_corners=False)


def build_feature_transforms(*, shapes: Sequence[tuple[int, int, Sequence[int]] | None]) -> nn.ModuleList:
    """Return a ``FeatureTransform`` with random weights for each pair of feature maps; the identity without a loss.

    ``shapes`` holds the channels of the student's map, and channels and size (H, W) of the teacher's; None of a pair
    that has no loss.
    """
    return nn.ModuleList(_transform(shape) for shape in shapes)


def _transform(shape: tuple[int, int, Sequence[int]] | None) -> nn.Module:
    if shape is None:
        return nn.Identity()
    own, theirs, size = shape
    return FeatureTransform(own, theirs, (size[0], size[1]))
