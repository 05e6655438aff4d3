"""From the names of published weights to those of the networks here."""

import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from .backbones.backbone import Backbone
from .layers.shape_transform import LogitTransform

HEADS = r"^(fc|linear|classifier(\.0)?)\.(weight|bias)$"
"""Names that published networks give their linear classifier."""
DENSE = r"^(.*denselayer\d+\.(?:norm|conv))\.([12])\."
"""How DenseNet's published weights write ``norm1.``."""
PARTS = r"^(backbone\.parts\.\d+|backbone|head(\.(\d+|transform)(?=\.linear))?|flow\.transform)\."
"""What stands before a published name here: the part of the network that holds it."""


@runtime_checkable
class Renames(Protocol):
    """A part of a network that knows how published weights call the whole of it."""

    @property
    def renamings(self) -> Sequence[tuple[str, str]]:
        """Return (pattern, replacement) pairs, each applied to what the one before has made of a name."""


class WeightNames:
    """Where weights of any name belong in ``network``: a classifier, or a student with a flow.

    Torchvision's names stand here behind the part that holds them; those of networks for small images (Tian et al.
    2020, CRD) differ by the backbone's ``published_names``; version 0.1 of this pipeline called the backbone ``trunk``.
    """

    def __init__(self, network: nn.Module) -> None:
        self.own = frozenset(network.state_dict())
        self._behind = {re.sub(PARTS, "", name): name for name in self.own}
        self._patterns = [
            pattern
            for module in network.modules()
            if isinstance(module, Backbone)
            for pattern in module.published_names
        ]
        self._renamings = [
            pattern for module in network.modules() if isinstance(module, Renames) for pattern in module.renamings
        ]
        self._heads = [name for name, module in network.named_modules() if isinstance(module, LogitTransform)]

    def find(self, published: str) -> str:
        """Return the name here of the weights called ``published``; where they have no place, one that is not here."""
        published = re.sub(DENSE, r"\1\2.", published)
        for name in (published, re.sub(r"^trunk\.", "backbone.", published)):
            if name in self.own:
                return name
        for pattern, replacement in self._renamings:
            published = re.sub(pattern, replacement, published)
        if published in self.own:
            return published
        inner = re.sub(PARTS, "", published)
        return self._behind.get(published) or self._behind.get(inner) or self._from_small(published)

    def is_head(self, name: str) -> bool:
        """Return whether the weights called ``name`` here are none of the backbone's, but what answers from it."""
        return not name.startswith("backbone.")

    def scope(self, name: str) -> str:
        """Return the first part of the published form of ``name``: ``layer1``, ``features``, ``fc``."""
        return re.sub(PARTS, "", name).partition(".")[0]

    def _from_small(self, published: str) -> str:
        name = re.sub(PARTS, "", re.sub(r"^trunk\.", "backbone.", published))
        if re.match(HEADS, name) and self._heads:
            return f"{self._heads[0]}.linear.{name.rpartition('.')[2]}"
        for pattern, replacement in self._patterns:
            name = re.sub(pattern, replacement, name)
        return f"backbone.{name}"
