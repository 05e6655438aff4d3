"""Whole networks: images (B, 3, H, W) in [0, 1] to logits (B, num_classes)."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.flow import FlowTransfer
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


class FlowStudent(nn.Module):
    """Normalisation, feature trunk, and the flow whose averaged estimates are the logits.

    There is no separate head: the flow's shape transform is the classifier (arXiv 2402.02012, logit-based FM-KT).
    """

    def __init__(self, trunk: nn.Module, flow: FlowTransfer, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.trunk = trunk
        self.flow = flow

    def features(self, images: Tensor) -> Tensor:
        """Return X_S, the last feature map (B, C, H', W')."""
        return self.trunk(self.normalize(images))  # type: ignore[no-any-return]

    def step_logits(self, images: Tensor, num_steps: int) -> list[Tensor]:
        """Return the logits (B, num_classes) that each of ``num_steps`` steps estimates."""
        return self.flow.step_outputs(self.features(images), num_steps)

    def forward(self, images: Tensor, num_steps: int) -> Tensor:
        """Return the mean over the steps of their logits (B, num_classes)."""
        return self.flow(self.features(images), num_steps)  # type: ignore[no-any-return]
