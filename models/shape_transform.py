"""Shape transforms T: from the student's feature space to the space in which the teacher is compared."""

from torch import Tensor, nn


class LogitTransform(nn.Module):
    """Global average pooling and a linear classifier: features (B, C, H, W) to logits (B, num_classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.linear(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]
