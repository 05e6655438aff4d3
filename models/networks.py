"""Plain networks: images (B, 3, H, W) in [0, 1] to logits (B, num_classes)."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.normalize import Normalize


class Classifier(nn.Module):
    """Normalisation and a plain network."""

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.network(self.normalize(images))  # type: ignore[no-any-return]
