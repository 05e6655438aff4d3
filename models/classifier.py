"""Plain networks: images (B, 3, H, W) in [0, 1] to logits (B, num_classes)."""

import re
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.core.calling import call
from models.layers.normalize import Normalize

HEADS = r"^(fc|linear|classifier(\.0)?)\.(weight|bias)$"
"""Names that published networks for small images give their linear classifier."""


class Classifier(nn.Module):
    """Normalisation, feature backbone and head."""

    def __init__(self, backbone: Backbone, head: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = backbone
        self.head = head

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

    def own_names(self, published: Iterable[str]) -> dict[str, str]:
        """Return the name used here for each of the ``published`` names of weights; names used here stay.

        Torchvision's names stand here behind the part that holds them; those of networks for small images (Tian et al.
        2020, CRD) differ by the backbone's ``published_names``.
        """
        own = {name: name for name in self.state_dict()}
        behind = {re.sub(r"^(backbone\.parts\.\d+|head)\.", "", name): name for name in own}
        return {name: own.get(name) or behind.get(name) or self._from_small(name) for name in published}

    def _from_small(self, name: str) -> str:
        if name.startswith(("backbone.", "head.")):
            return name
        if name.startswith("trunk."):  # as version 0.1 of this pipeline called the backbone
            return f"backbone.{name.removeprefix('trunk.')}"
        if re.match(HEADS, name):
            return "head.linear." + name.rpartition(".")[2]
        for pattern, replacement in self.backbone.published_names:
            name = re.sub(pattern, replacement, name)
        return f"backbone.{name}"
