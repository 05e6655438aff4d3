"""Plain networks: images (B, 3, H, W) in [0, 1] to logits (B, num_classes)."""

from collections.abc import Sequence

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .core.calling import call
from .layers.normalize import Normalize


class Classifier(nn.Module):
    """Normalisation, feature backbone and head."""

    map_name = "stage"
    """What returns a feature map."""

    def __init__(self, backbone: Backbone, head: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = backbone
        self.head = head

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels of each of ``feature_maps``."""
        return self.backbone.widths

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return call(self.head, self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map (B, C, H', W'), which the head takes."""
        return call(self.backbone, self.normalize(images))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return what each stage of the backbone returns, (B, C, H, W) each."""
        x = self.normalize(images)
        return [x := stage(x) for stage in self.backbone.stages()]

    def with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits (B, num_classes) and the ``feature_maps`` that they come from."""
        maps = self.feature_maps(images)
        return call(self.head, maps[-1]), maps
